"""Writes what was found: report.md, claims.csv, values.csv, findings.json and the figures."""

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
from kdx.evidence.findings import Finding
from kdx.evidence.forest import forest
from kdx.evidence.evidence_results import EvidenceResults
from kdx.evidence.progress import duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

log = logging.getLogger("kdx")

RULE = (
    "A claim is about the mean over seeds of a number, mostly of a difference of two systems trained with the same seed. It "
    "**holds** if the 95 % interval of that mean lies wholly in the claimed region, **fails** if none of it does, and is "
    "**undecided** otherwise; a claim of several parts holds if all of them hold, and fails if one fails. The interval is "
    "Student's; the percentile bootstrap is too narrow for so few seeds, and is in claims.csv, widened, to compare. Without "
    "any effect, one claim in forty would hold by chance."
)


def write(declared: Declaration, findings: Sequence[Finding], found: EvidenceResults, folder: Path) -> None:
    """Write everything into `folder`; what an earlier call wrote there is replaced."""
    drawn = _figures(declared, findings, found, folder)
    (folder / "report.md").write_text("\n\n".join(_report(declared, findings, found, drawn)) + "\n", encoding="utf-8")
    (folder / "claims.csv").write_text(claim_tables.claims_csv(findings), encoding="utf-8")
    (folder / "values.csv").write_text(claim_tables.values_csv(_values(declared, found)), encoding="utf-8")
    data = {"name": declared.name, "title": declared.title, "seeds": list(declared.seeds), **_provenance(found)}
    data["claims"] = [claim_tables.as_data(finding) for finding in findings]
    (folder / "findings.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def summary(findings: Sequence[Finding]) -> str:
    """How many claims hold, fail, and so on, in a line."""
    counts: Counter[str] = Counter(finding.verdict for finding in findings)
    total = f"{len(findings)} claim{'s' if len(findings) != 1 else ''}: "
    return total + ", ".join(f"{counts[verdict]} {claim_tables.PLAIN[verdict]}" for verdict in claim_tables.PLAIN if counts[verdict])


def _report(
    declared: Declaration, findings: Sequence[Finding], found: EvidenceResults, drawn: dict[str, list[str]]
) -> Iterator[str]:
    yield f"# {declared.title}"
    yield f"{summary(findings)}."
    yield RULE
    yield _circumstances(declared, found)
    yield from (f"![All claims]({file})" for file in drawn.get("", []))
    for family in declared.families:
        own = [finding for finding in findings if finding.family == family.name]
        yield f"## {family.paper}"
        yield f"{' '.join(family.about.split())} {_teachers(family, found)}"
        yield claim_tables.claims_table(own)
        yield from (f"{finding.name.replace('_', ' ')}: {' '.join(finding.note.split())}" for finding in own if finding.note)
        yield from (f"![{family.name}]({file})" for file in drawn.get(family.name, []))
        numbers = {system: _numbers(family, system, found) for system in family.needed}
        yield claim_tables.systems_table(numbers)
    yield "## Every run again"
    yield "A run is `kdx-train` with these overrides, after those of every run:"
    yield f"```\n{_shell(declared.overrides)}\n```"
    needed = [(family, system) for family in declared.families for system in family.needed]
    lines = [f"{family.name} {system}: {_shell(family.systems[system])}" for family, system in needed]
    yield "```\n" + "\n".join(lines) + "\n```"


def _circumstances(declared: Declaration, found: EvidenceResults) -> str:
    facts = _provenance(found)
    seconds = facts["seconds"]
    selection = " and ".join(facts["selection"]) or "none"
    commits = ", ".join(str(commit)[:10] for commit in facts["git_commits"]) or "unknown"
    changed = " with changes that are not committed" if facts["git_dirty"] else ""
    several = " The runs come from several commits." if len(facts["git_commits"]) > 1 else ""
    return (
        f"Seeds {', '.join(map(str, declared.seeds))} set the student's initial weights, the order of images and their views; "
        f"splits and teacher are the same for all. Selection: {selection}. {facts['runs']} runs took {duration(seconds)} of "
        f"single-threaded time, on {facts['hardware']}; torch {facts['torch']}, kdx {facts['kdx']}, commit {commits}{changed}."
        f"{several}"
    )


def _provenance(found: EvidenceResults) -> dict[str, Any]:
    """What the finished runs say of where they come from."""
    reports = [run_metrics.report(run.folder) for run in {run.key: run for run in found.runs if run.finished}.values()]
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


def _teachers(family: Family, found: EvidenceResults) -> str:
    """Who taught: how many different teachers (an ensemble is one of its own), and how good they are on test."""
    taught: dict[str, Mapping[str, float]] = {}
    for run in (run for system in family.needed for run in found.of(family.name, system)):
        card = run.folder / "teacher.json"
        metrics = run_metrics.report(run.folder)["metrics"]
        if card.is_file() and "test/teacher/accuracy" in metrics:
            members = json.loads(card.read_text(encoding="utf-8"))["members"].values()
            taught.setdefault(" ".join(member["sha256"] for member in members), metrics)
    if not taught:
        return ""
    accuracies = " and ".join(number(metrics["test/teacher/accuracy"]) for metrics in taught.values())
    who = "One teacher" if len(taught) == 1 else f"{len(taught)} teachers"
    return f"{who} taught all of them; test accuracy {accuracies}."


def _numbers(family: Family, system: str, found: EvidenceResults) -> dict[str, list[float]]:
    metrics = dict.fromkeys(metric for reasons in family.needed.values() for metric in reasons)
    runs = found.of(family.name, system)
    numbers: dict[str, list[float]] = {}
    for metric in metrics:
        for run in runs:
            try:
                numbers.setdefault(metric, []).append(run_metrics.value(run.folder, metric))
            except ValueError:  # this system has no such number, or diverged
                continue
    return numbers


def _values(declared: Declaration, found: EvidenceResults) -> Iterator[tuple[str, str, int, str, float]]:
    """Every final number of every finished run."""
    for family in declared.families:
        for system in family.needed:
            for run in found.of(family.name, system):
                for name, value in run_metrics.report(run.folder)["metrics"].items():
                    if name.startswith(("test/", "val/", "seconds")):
                        yield family.name, system, run.seed, name, value


def _figures(declared: Declaration, findings: Sequence[Finding], found: EvidenceResults, folder: Path) -> dict[str, list[str]]:
    """Draw all figures; gives the files to show by family, the one of all claims under ""."""
    drawn: dict[str, list[str]] = {}
    if any(not finding.missing for finding in findings):
        drawn[""] = [_save(forest(findings, declared.title), folder, "claims", declared.formats)]
    for family in declared.families:
        read = _bound(found.read, family.name)
        follow = _bound(found.follow, family.name)
        for name, figure in family.figures.items():
            try:
                drawing = figure.draw(read, follow)
            except ValueError as error:  # a run that diverged
                log.warning("figure %s of %s is not drawn: %s", name, family.name, error)
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
