"""Read the files of one run folder as plain data; errors in the files are returned as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]

START, CONFIG, END = "run.json", "config.yaml", "metrics.json"
FILES = (START, CONFIG, END)  # the files that a record is read from
REQUIRED: Mapping[str, type] = {  # config keys that are read by name, with their types; a run's config has all of them
    "name": str,
    "seed": int,
    "student": dict,
    "data": dict,
    "trainer": dict,
}
UNDEFINED = ("auroc",)  # metrics that are NaN if all predictions are correct (or all wrong); not an error of the run
REMEDY = "rerun the job, or move the folder away"


def read_record(folder: Path, present: frozenset[str]) -> Record:
    """Return the record of a run folder. It never raises: the first error found is stored as text under `problem`.

    Args:
        folder: The run folder.
        present: The names in FILES that exist in it.

    Returns:
        Plain data: "config", "metrics", "last" (metrics of the last weights), "selection", "data", "provenance", "cost",
        "started", "group", "finished" (whether `metrics.json` exists) and "problem" ("" if there is none). The config is
        read from `config.yaml` if `run.json` does not exist (runs of older versions).
    """
    problems: list[str] = []
    start = _json(folder / START, problems) if START in present else {}
    config: Any = start.get("config")
    if START in present and not config and not problems:
        problems.append(f"{START} has no config: {REMEDY}")
    if not config and CONFIG in present:
        config = _yaml(folder / CONFIG, problems)
    config = config if isinstance(config, dict) else {}
    invalid = [key for key, expected in REQUIRED.items() if not isinstance(config.get(key), expected)]
    invalid += ["baseline"] if not isinstance(config.get("baseline"), str | None) else []
    if invalid and not problems:
        file = START if START in present else CONFIG
        problems.append(f"{file}: '{invalid[0]}' is missing or invalid, so this is not a run config; exclude this folder")
    end = _json(folder / END, problems) if END in present else {}
    if END in present and not isinstance(end.get("metrics"), dict) and not problems:
        problems.append(f"{END} has no metrics: {REMEDY}")
    return {
        "config": config,
        "metrics": _numbers(end, "metrics", problems),
        "last": _numbers(end, "last", problems),
        "selection": _mapping(end, "selection"),
        "data": _mapping(end, "data"),
        "provenance": _provenance(start) | _provenance(end),
        "cost": _mapping(end, "cost"),
        "caveats": {kind: str(text) for kind, text in _mapping(end, "caveats").items()},
        "higher_is_better": {k: v for k, v in _mapping(end, "higher_is_better").items() if isinstance(v, bool | None)},
        "started": _text(start.get("started")),
        "group": _text(start.get("group")),
        "finished": END in present,
        "problem": problems[0] if problems else "",
    }


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror}): check its permissions and the disk")
        return {}
    except (ValueError, RecursionError):  # ValueError: invalid JSON or invalid UTF-8
        problems.append(f"{path.name} is incomplete or invalid: {REMEDY}")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name} is not a JSON object: {REMEDY}")
        return {}
    return content


def _yaml(path: Path, problems: list[str]) -> Any:
    import yaml

    try:
        return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror}): check its permissions and the disk")
    except (yaml.YAMLError, ValueError, RecursionError):
        problems.append(f"{path.name} is incomplete or invalid: {REMEDY}")
    return {}


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _provenance(content: Mapping[str, Any]) -> dict[str, Any]:
    types = {"overrides": list, "versions": dict, "hardware": dict}
    entries = _mapping(content, "provenance").items()
    return {key: value for key, value in entries if isinstance(value, types.get(key, object))}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _numbers(content: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, float]:
    """Return the finite numbers under `key`; add a problem for each other value."""
    numbers: dict[str, float] = {}
    for name, value in _mapping(content, key).items():
        if isinstance(value, int | float) and math.isfinite(value):
            numbers[name] = float(value)
        elif not name.endswith(UNDEFINED):
            remedy = "the run diverged: lower optimizer.lr" if isinstance(value, float) else REMEDY
            problems.append(f"{END}: {name} is {value}; {remedy}")
    return numbers
