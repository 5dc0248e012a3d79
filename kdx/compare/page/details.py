"""Plain data for the details dialog of a run and for the filter: config, metrics, provenance, pictures."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdx.compare.metric_names import ordered, unit, what, whose
from kdx.compare.page.charts import rounded
from kdx.compare.page.material import Material
from kdx.compare.page.pictures import Album
from kdx.compare.page.reliability import MOST_SIDE_BY_SIDE, diagrams_of, pooled, side_by_side
from kdx.compare.page.table import plain
from kdx.compare.runs import RunRecord
from kdx.run.masking import web_link

MOST_DIAGRAMS = 24  # runs with a reliability diagram in their details; limits the size of the page


def details(material: Material, page: Path, room: int) -> dict[str, Any]:
    """Return plain data of all runs and groups; config values that all runs share are stored once.

    Args:
        material: The runs and groups.
        page: The path of the page, for links to run folders.
        room: The number of characters that pictures may take.

    Returns:
        {"split", "names": metric names, "words": [[quantity, network and split, unit]] of each name, "shared": config values
        of all runs, "texts": of the facts of runs, "runs": [...], "groups": [...]}.
    """
    names = ordered(name for run in material.listed for name in run.metrics)
    configs = {str(run.path): {path: plain(value) for path, value in run.flat_config.items()} for run in material.listed}
    shared = common([config for config in configs.values() if config])
    album = Album(room)
    first = {id(system.done[0]) for system in material.rows if system.done}
    pictured = [run for run in material.listed if id(run) in first] if len(material.listed) > MOST_DIAGRAMS else material.done
    drawn = {id(run) for run in pictured[:MOST_DIAGRAMS]}
    listed = {id(run) for run in material.listed}
    runs = []
    texts: dict[str, int] = {}  # the texts of facts, of which runs have many in common, with their places
    for run in material.listed:
        examples = album.examples(run) if id(run) in first else []
        differing = {path: value for path, value in configs[str(run.path)].items() if shared.get(path) != value}
        entry = {
            "id": material.id(run), "name": run.name, "seed": run.seed, "state": run.state, "problem": run.problem,
            "baseline": run.baseline, "facts": [[label, texts.setdefault(text, len(texts))] for label, text in facts(run)],
            "folder": _link(run.path, page),
            "wandb": web_link(_json(run.path / "wandb.json").get("url")), "differing": differing,
            "lacks": [path for path in shared if path not in configs[str(run.path)]],
            "values": [compact(run.metrics.get(name)) for name in names],
            "examples": examples,
            "pictures": album.of(run, "disagreement.png" if examples else "") if id(run) in first else [],
            "reliability": _diagram(run) if id(run) in drawn else None,
        }  # fmt: skip
        runs.append(entry)
    return {
        "split": material.split,
        "names": names,
        "words": [[what(name), whose(name), unit(name)] for name in names],
        "shared": shared,
        "texts": list(texts),
        "runs": runs,
        "groups": [
            {
                "id": f"group-{i}", "label": system.label, "short": system.short,
                "runs": [material.id(run) for run in system.group.runs if id(run) in listed],
                "values": [compact(system.mean(name)) for name in names],
            }
            for i, system in enumerate(material.rows)
        ],
    }  # fmt: skip


def compact(value: float | None) -> float | int | None:
    """Return a value with six significant digits, whole numbers as they are; NaN and infinity become None."""
    return int(value) if value is not None and value.is_integer() else rounded(value, 6)


def common(configs: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the (path, value) pairs that all configs have."""
    if not configs:
        return {}
    return {path: value for path, value in configs[0].items() if all(config.get(path) == value for config in configs)}


def facts(run: RunRecord) -> list[list[str]]:
    """Return the provenance of a run as [label, value] pairs, without unknown values."""
    source = run.provenance
    command, overrides = source.get("command"), source.get("overrides")
    commit = source.get("git_commit")
    teacher = _json(run.path / "teacher.json")
    teachers = [member for member in teacher.get("members", {"": teacher}).values() if isinstance(member, Mapping)]
    pairs = [
        ("Selected", _text(run.selection.get("text") or run.selection.get("rule"))),
        ("Started", _text(run.started)),
        ("Sweep", _text(run.group)),
        ("Command", shlex.join(map(str, command)) if isinstance(command, list) else _text(command)),
        ("Overrides", " ".join(map(str, overrides)) if isinstance(overrides, list) else _text(overrides)),
        ("Commit", f"{commit}{' with uncommitted changes' if source.get('git_dirty') else ''}" if commit else ""),
        ("Versions", _pairs(source.get("versions"))),
        ("Hardware", hardware(run)),
        ("Data fingerprint", _text(run.data.get("fingerprint"))),
        ("Teacher sha256", ", ".join(_text(member.get("sha256")) for member in teachers)),
        ("Calibration", ", ".join(_calibration(member) for member in teachers)),
        ("Cost protocol", _text(run.cost.get("protocol"))),
        ("Folder", str(run.path)),
    ]
    return [[label, value] for label, value in pairs if value]


def _calibration(member: Mapping[str, Any]) -> str:
    """Return the method that calibrates a teacher, with its temperature if it has one; "" if it is unknown."""
    temperature, stated = member.get("calibration_temperature"), member.get("calibration")
    if temperature is not None:
        return f"temperature {_text(temperature)}"
    return _text(stated.get("method")) if isinstance(stated, Mapping) else ""


def hardware(run: RunRecord) -> str:
    """Return a short description of the machine; "" if it is unknown."""
    machine = run.provenance.get("hardware")
    if not isinstance(machine, Mapping):
        return _text(machine)
    gpus = machine.get("gpus") or []
    parts = [", ".join(map(str, gpus)) if isinstance(gpus, list) else str(gpus)]
    parts += [str(machine["cpu"])] if machine.get("cpu") else []
    parts += [f"{machine['cpu_cores']} CPU cores"] if machine.get("cpu_cores") else []
    parts += [str(machine["platform"]).partition("-")[0]] if machine.get("platform") else []  # without the kernel version
    return " · ".join(part for part in parts if part)


def _pairs(values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if isinstance(values, Mapping) else _text(values)


def _text(value: Any) -> str:
    return "" if value is None or value in ({}, []) else str(value)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _link(folder: Path, page: Path) -> str:
    """Return a relative link from the page to the folder; "" if there is none (different drives)."""
    from urllib.parse import quote

    try:
        return "./" + quote(Path(os.path.relpath(folder, page.parent)).as_posix()) + "/"
    except ValueError:
        return ""


def _diagram(run: RunRecord) -> dict[str, Any] | None:
    stored = diagrams_of(run)
    diagrams = pooled(stored, "test") or pooled(stored, "val")
    return rounded(side_by_side(diagrams[:MOST_SIDE_BY_SIDE])) if diagrams else None
