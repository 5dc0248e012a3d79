"""Write the evidence report: report.md, claims.csv, values.csv, findings.json and the figures."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdx.compare.statistics import number
from kdx.evidence import claim_tables, run_metrics
from kdx.evidence.declaration import Declaration, Family
from kdx.evidence.evidence_results import EvidenceResults
from kdx.evidence.findings import Finding
from kdx.evidence.forest import forest
from kdx.run.durations import duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

log = logging.getLogger("kdx")

RULE = (
    "A claim is a statement about a mean over seeds, in most cases about the mean difference of two systems, paired by seed. "
    "It **holds** if the 95 % confidence interval of this mean lies entirely in the claimed region, **fails** if the interval "
    "lies entirely outside, and is **undecided** otherwise. A claim with several comparisons holds if all of them hold, and "
    "fails if one fails. The interval is Student's t interval. The percentile bootstrap interval is too narrow for so few "
    "seeds; a widened version is in claims.csv for comparison. Without any effect, one claim in forty would hold by chance."
)


def write(declared: Declaration, findings: Sequence[Finding], results: EvidenceResults, folder: Path) -> None:
    """Write all files of the report into `folder`; existing files are replaced."""
    drawn = _figures(declared, findings, results, folder)
    (folder / "report.md").write_text("\n\n".join(_report(declared, findings, results, drawn)) + "\n", encoding="utf-8")
    (folder / "claims.csv").write_text(claim_tables.claims_csv(findings), encoding="utf-8")
    (folder / "values.csv").write_text(claim_tables.values_csv(_values(declared, results)), encoding="utf-8")
    data = {"name": declared.name, "title": declared.title, "seeds": list(declared.seeds), **_provenance(results)}
    data["claims"] = [claim_tables.as_data(finding) for finding in findings]
    (folder / "findings.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def summary(findings: Sequence[Finding]) -> str:
    """Return the number of claims that hold, fail, are undecided and were not run, in one line."""
    counts: Counter[str] = Counter(finding.verdict for finding in findings)
    total = f"{len(findings)} claim{'s' if len(findings) != 1 else ''}: "
    return total + ", ".join(
        f"{counts[verdict]} {claim_tables.PLAIN[verdict]}" for verdict in claim_tables.PLAIN if counts[verdict]
    )


def _report(
    declared: Declaration, findings: Sequence[Finding], results: EvidenceResults, drawn: dict[str, list[str]]
) -> Iterator[str]:
    yield f"# {declared.title}"
    yield f"{summary(findings)}."
    yield RULE
    yield _circumstances(declared, results)
    yield from (f"![All claims]({file})" for file in drawn.get("", []))
    for family in declared.families:
        of_family = [finding for finding in findings if finding.family == family.name]
        yield f"## {family.paper}"
        yield f"{' '.join(family.about.split())} {_teachers(family, results)}"
        yield claim_tables.claims_table(of_family)
        noted = [finding for finding in of_family if finding.note]
        yield from (f"{finding.name.replace('_', ' ')}: {' '.join(finding.note.split())}" for finding in noted)
        yield from (f"![{family.name}]({file})" for file in drawn.get(family.name, []))
        numbers = {system: _numbers(family, system, results) for system in family.needed}
        yield claim_tables.systems_table(numbers)
    yield "## Reproducing single runs"
    yield "To reproduce a run, call `kdx-train` with the overrides common to all runs:"
    yield f"```\n{_shell(declared.overrides)}\n```"
    yield "followed by the overrides of the system, and `seed=N`:"
    needed = [(family, system) for family in declared.families for system in family.needed]
    lines = [f"{family.name} {system}: {_shell(family.systems[system])}" for family, system in needed]
    yield "```\n" + "\n".join(lines) + "\n```"


def _circumstances(declared: Declaration, results: EvidenceResults) -> str:
    facts = _provenance(results)
    seconds = facts["seconds"]
    selection = " and ".join(facts["selection"]) or "none"
    commits = ", ".join(str(commit)[:10] for commit in facts["git_commits"]) or "unknown"
    changed = " with uncommitted changes" if facts["git_dirty"] else ""
    several = " The runs were made at several commits." if len(facts["git_commits"]) > 1 else ""
    return (
        f"Seeds: {', '.join(map(str, declared.seeds))}. The seed determines the student's initial weights, the order of the "
        "images and their views; splits are the same for all seeds, and so are teachers, except where a family says otherwise. "
        f"Selection rule of the weights: {selection}. "
        f"{facts['runs']} runs took {duration(seconds)} of single-threaded time on {facts['hardware']}. Versions: torch "
        f"{facts['torch']}, kdx {facts['kdx']}, commit {commits}{changed}.{several}"
    )


def _provenance(results: EvidenceResults) -> dict[str, Any]:
    """Return the provenance of all finished runs together."""
    reports = [run_metrics.report(run.folder) for run in {run.key: run for run in results.runs if run.finished}.values()]
    sources = [report["provenance"] for report in reports]

    def distinct(values: Any) -> list[Any]:
        return list(dict.fromkeys(values))

    return {
        "runs": len(reports),
        "seconds": sum(report["metrics"]["seconds"] for report in reports),
        "selection": distinct(report["selection"]["rule"] for report in reports),
        "git_commits": distinct(source["git_commit"] for source in sources if source["git_commit"]),
        "git_dirty": any(source["git_dirty"] for source in sources),
        "hardware": ", ".join(
            distinct(f"{source['hardware']['cpu_cores']} cores ({source['hardware']['platform']})" for source in sources)
        ),
        "torch": ", ".join(distinct(source["versions"]["torch"] for source in sources)),
        "kdx": ", ".join(distinct(source["versions"]["kdx"] for source in sources)),
    }


def _teachers(family: Family, results: EvidenceResults) -> str:
    """Return a sentence with the number of different teachers (an ensemble counts as one) and their test accuracies."""
    by_weights: dict[str, Mapping[str, float]] = {}
    for run in (run for system in family.needed for run in results.of(family.name, system)):
        card = run.folder / "teacher.json"
        metrics = run_metrics.report(run.folder)["metrics"]
        if card.is_file() and "test/teacher/accuracy" in metrics:
            members = json.loads(card.read_text(encoding="utf-8"))["members"].values()
            by_weights.setdefault(" ".join(member["sha256"] for member in members), metrics)
    if not by_weights:
        return ""
    accuracies = " and ".join(number(metrics["test/teacher/accuracy"]) for metrics in by_weights.values())
    count = "one teacher" if len(by_weights) == 1 else f"{len(by_weights)} teachers"
    return f"The systems share {count} with test accuracy {accuracies}."


def _numbers(family: Family, system: str, results: EvidenceResults) -> dict[str, list[float]]:
    metrics = dict.fromkeys(metric for reasons in family.needed.values() for metric in reasons)
    runs = results.of(family.name, system)
    numbers: dict[str, list[float]] = {}
    for metric in metrics:
        for run in runs:
            try:
                numbers.setdefault(metric, []).append(run_metrics.value(run.folder, metric))
            except ValueError:  # the system does not have this metric, or the run diverged
                continue
    return numbers


def _values(declared: Declaration, results: EvidenceResults) -> Iterator[tuple[str, str, int, str, float]]:
    """Yield (family, system, seed, metric, value) for all final metrics of all finished runs."""
    for family in declared.families:
        for system in family.needed:
            for run in results.of(family.name, system):
                for name, value in run_metrics.report(run.folder)["metrics"].items():
                    if name.startswith(("test/", "val/", "seconds")):
                        yield family.name, system, run.seed, name, value


def _figures(
    declared: Declaration, findings: Sequence[Finding], results: EvidenceResults, folder: Path
) -> dict[str, list[str]]:
    """Draw all figures and return the files by family; the figure of all claims is under ""."""
    drawn: dict[str, list[str]] = {}
    if any(not finding.missing for finding in findings):
        drawn[""] = [_save(forest(findings, declared.title), folder, "claims", declared.formats)]
    for family in declared.families:
        read = _bound(results.read, family.name)
        read_curves = _bound(results.read_curves, family.name)
        for name, figure in family.figures.items():
            try:
                drawing = figure.draw(read, read_curves)
            except ValueError as error:  # a run diverged
                log.warning("skipping figure %s of %s: %s", name, family.name, error)
                continue
            if drawing is not None:
                file = _save(drawing, folder, f"{family.name}-{name.replace('_', '-')}", declared.formats)
                drawn.setdefault(family.name, []).append(file)
    return drawn


def _bound(function: Any, family: str) -> Any:
    return lambda system, name: function(family, system, name)


def _save(drawing: Drawing, folder: Path, name: str, formats: Sequence[str]) -> str:
    for kind in formats:
        metadata = {"Date": None} if kind == "svg" else None
        drawing.savefig(folder / f"{name}.{kind}", dpi=160, metadata=metadata)
    return f"{name}.{'png' if 'png' in formats else formats[0]}"


def _shell(overrides: Sequence[str]) -> str:
    return " ".join(f"'{item}'" if any(c in item for c in " {}$*") else item for item in overrides)
