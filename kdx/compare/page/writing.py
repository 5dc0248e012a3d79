"""Render the page into one file: data and charts in the template, with a policy that forbids other scripts and requests."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from kdx.compare.page import choices, curves, factors, influences, reliability, scatter, search, shift
from kdx.compare.page.baseline_differences import BaselineDifferences, baseline_differences
from kdx.compare.page.charts import DARK, SHAPES, templates
from kdx.compare.page.details import details, hardware
from kdx.compare.page.material import Material, gather
from kdx.compare.page.sweeps import unfinished_sweeps
from kdx.compare.page.table import group_table, run_table
from kdx.compare.runs import RunRecord

SCRIPTS = ("common.js", "table.js", "charts.js", "detail.js", "differences.js", "reload.js")
SIZE = 7_900_000  # maximum number of characters of a page; pictures beyond it are left out
REST = 6_000  # characters per run for its table rows, config and facts
SECTIONS = (
    ("choose-t", "How to choose T", (choices.temperature,)),
    ("choose-px", "Which resolution", (choices.resolution,)),
    ("results", "Results", (scatter.seeds, scatter.pareto)),
    ("sweep", "Sweep", (factors.importance, factors.parallel)),
    ("search", "Search", (search.history, search.importance, search.front)),
    ("training", "Training", (curves.training, curves.temperatures)),
    ("calibration", "Calibration", (reliability.chart, scatter.entropy)),
    ("influences", "Effect of settings", (influences.resolution, influences.temperature, influences.patience)),
    ("shift", "Distribution shift", (shift.chart,)),
)


def write(
    runs: Sequence[RunRecord], path: Path, title: str | None = None, *, against: str | None = None, refresh: float | None = None
) -> Path:
    """Write the page of these runs to `path` and return the path. An existing file is replaced atomically.

    Damaged runs are listed with their problem. Without runs, the page explains how to train one.

    Args:
        runs: The runs, as `find_runs` returns them.
        path: The HTML file.
        title: The title of the page; by default the names of the runs.
        against: The baseline, as for `compare`.
        refresh: Seconds after which the page reloads itself while a run or a sweep is in progress; None disables it.

    Raises:
        ValueError: If no run, group or baseline is named `against`.
    """
    path = Path(path)
    text = page(runs, path, title, against, refresh)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)  # mkstemp creates files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def page(
    runs: Sequence[RunRecord], path: Path, title: str | None = None, against: str | None = None, refresh: float | None = None
) -> str:
    """Return the page as text. `path` is its later location, for links to the run folders."""
    import jinja2
    from markupsafe import Markup

    material = gather(runs)
    against_baseline = baseline_differences(material, against)
    sections = [(key, name, [c for build in builders if (c := build(material))]) for key, name, builders in SECTIONS]
    sections = [entry for entry in sections if entry[2]]
    charts = [chart for _, _, members in sections for chart in members]
    chart_data = {chart.key: embedded(chart.as_data()) for chart in charts}
    plotly = library() if runs else ""
    room = SIZE - REST * len(material.listed) - len(plotly) - sum(map(len, chart_data.values()))
    data = details(material, path.absolute(), room) | {"templates": templates(), "dark": DARK, "shapes": SHAPES}
    theme, script = asset("theme.js"), '(() => {\n"use strict";\n' + "\n".join(map(asset, SCRIPTS)) + "\n})();"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["unbroken"] = unbroken
    sweeps = unfinished_sweeps(runs)
    is_going_on = any(run.state == "running" for run in runs) or any(sweep.is_going_on for sweep in sweeps)
    every = max(2, round(refresh)) if refresh and is_going_on else None
    links = [("overview", "Overview"), *((key, name) for key, name, _ in sections), ("differences", "Differences")]
    return environment.from_string(asset("page.html.j2")).render(
        shapes=SHAPES,
        title=title or titled(runs),
        facts=facts(material),
        sweeps=sweeps,
        verdicts=against_baseline.verdicts,
        caveats=against_baseline.caveats,
        runs=run_table(material),
        groups=group_table(material, against_baseline),
        by_group=any(len(system.group.runs) > 1 for system in material.systems),
        table_note=note(material, against_baseline),
        chart_sections=sections,
        sections=links if runs else [],
        charts=charts,
        chart_data={key: Markup(text) for key, text in chart_data.items()},
        data=Markup(embedded(data)),
        style=Markup(asset("page.css")),
        theme_script=Markup(theme),
        script=Markup(script),
        plotly=Markup(plotly),
        policy=policy([theme, plotly, script]),
        refresh=every,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=metadata.version("kdx"),
    )  # fmt: skip


def unbroken(text: str) -> str:
    """Return a text whose intervals and numbers of seeds are not broken into two lines."""
    return re.sub(r"\[\S+ \S+\]|n = \d+|\S+ ± \S+", lambda found: found[0].replace(" ", "\u00a0"), text)


def embedded(data: Any) -> str:
    """Return JSON for a <script> element: "<", ">" and "&" are escaped, so the data cannot end the element or open one."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for sign in "&<>":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def policy(scripts: Sequence[str]) -> str:
    """Return a content security policy that allows only these scripts, and no requests, forms or frames."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts if s)
    rules = ["default-src 'none'", "script-src " + (hashes or "'none'"), "style-src 'unsafe-inline'", "img-src data: blob:"]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


@cache
def asset(name: str) -> str:
    """Return an asset of the page as text."""
    return resources.files("kdx.compare.page").joinpath("assets", name).read_text("utf-8")


@cache
def library() -> str:
    """Return Plotly's script from its Python package."""
    script = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8")
    assert "</script" not in script.lower()
    return script


def titled(runs: Sequence[RunRecord]) -> str:
    """Return a title made of the names of the runs."""
    names = list(dict.fromkeys(run.name for run in runs if run.state != "damaged"))
    if not names:
        return "Runs"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def facts(material: Material) -> list[tuple[str, str]]:
    """Return the (label, value) pairs in the head of the page: number of runs, n, selection rule, hardware, version."""
    states = Counter(run.state for run in material.runs)
    sizes = sorted({len(system.done) for system in material.systems if system.done})
    finished = material.done
    commits = {str(run.provenance.get("git_commit"))[:10] for run in finished if run.provenance.get("git_commit")}
    pairs = [
        ("Runs", ", ".join(f"{count} {state}" for state, count in states.items())),
        ("Groups", str(len(material.systems)) if material.systems else ""),
        ("Seeds per group (n)", " to ".join(str(n) for n in dict.fromkeys((sizes[0], sizes[-1]))) if sizes else ""),
        ("Selection rule", _several(str(run.selection.get("rule", "")) for run in finished)),
        ("Split", material.split if finished else ""),
        ("Hardware", _several(hardware(run) for run in finished)),
        ("Code", _several(["commit " + commit for commit in sorted(commits)] or [_versions(run) for run in finished])),
    ]  # fmt: skip
    return [(label, value) for label, value in pairs if value]


def _versions(run: RunRecord) -> str:
    versions = run.provenance.get("versions")
    if not isinstance(versions, Mapping):
        return ""
    return ", ".join(f"{name} {versions[name]}" for name in ("kdx", "torch") if name in versions)


def _several(values: Any) -> str:
    distinct = [value for value in dict.fromkeys(values) if value]
    return " | ".join(distinct[:2]) + (f" | {len(distinct) - 2} others" if len(distinct) > 2 else "")


def note(material: Material, against_baseline: BaselineDifferences) -> str:
    """Return the note below the tables: what the numbers of the groups are."""
    text = f"Groups: mean ± standard deviation over seeds, on {material.split}, of the selected weights."
    return " ".join(part for part in (text + material.unlisted, against_baseline.note) if part)
