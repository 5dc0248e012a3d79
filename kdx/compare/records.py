"""What the files of one run folder say, as plain data; whatever is wrong with them becomes a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]

START, CONFIG, END = "run.json", "config.yaml", "metrics.json"
FILES = (START, CONFIG, END)  # what a record is made of
SHAPES: Mapping[str, type] = {  # of what is read from a config by name; without these it is not a run's
    "name": str,
    "seed": int,
    "student": dict,
    "data": dict,
    "trainer": dict,
}
UNDEFINED = ("auroc",)  # has no value where every answer is right (or wrong); that is no fault of a run
AGAIN = "run it again, or move the folder away"


def read_record(folder: Path, present: frozenset[str]) -> Record:
    """The record of a run folder, of which the FILES in `present` exist. No error: `problem` says what is wrong.

    A run without `run.json` (of an older kdx) is read from `config.yaml`. `finished` is whether there is a `metrics.json`.
    """
    problems: list[str] = []
    start = _json(folder / START, problems) if START in present else {}
    config: Any = start.get("config")
    if START in present and not config and not problems:
        problems.append(f"{START} has no config: {AGAIN}")
    if not config and CONFIG in present:
        config = _yaml(folder / CONFIG, problems)
    config = config if isinstance(config, dict) else {}
    wrong = [key for key, shape in SHAPES.items() if not isinstance(config.get(key), shape)]
    wrong += ["baseline"] if not isinstance(config.get("baseline"), str | None) else []
    if wrong and not problems:
        where = START if START in present else CONFIG
        problems.append(f"{where} has no good '{wrong[0]}': it is not the config of a run; leave this folder out")
    end = _json(folder / END, problems) if END in present else {}
    if END in present and not isinstance(end.get("metrics"), dict) and not problems:
        problems.append(f"{END} has no metrics: {AGAIN}")
    return {
        "config": config,
        "metrics": _numbers(end, "metrics", problems),
        "last": _numbers(end, "last", problems),
        "selection": _mapping(end, "selection"),
        "data": _mapping(end, "data"),
        "provenance": _provenance(start) | _provenance(end),
        "cost": _mapping(end, "cost"),
        "higher_is_better": {k: v for k, v in _mapping(end, "higher_is_better").items() if isinstance(v, bool | None)},
        "started": _text(start.get("started")),
        "group": _text(start.get("group")),
        "finished": END in present,
        "problem": problems[0] if problems else "",
    }


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror}): mend its permissions or its disk")
        return {}
    except (ValueError, RecursionError):  # ValueError: of JSON and of UTF-8
        problems.append(f"{path.name} is not whole: {AGAIN}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} is not an object: {AGAIN}")
        return {}
    return found


def _yaml(path: Path, problems: list[str]) -> Any:
    import yaml

    try:
        return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror}): mend its permissions or its disk")
    except (yaml.YAMLError, ValueError, RecursionError):
        problems.append(f"{path.name} is not whole: {AGAIN}")
    return {}


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _provenance(content: Mapping[str, Any]) -> dict[str, Any]:
    found = _mapping(content, "provenance")
    shapes = {"overrides": list, "versions": dict, "hardware": dict}
    return {key: value for key, value in found.items() if isinstance(value, shapes.get(key, object))}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _numbers(content: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, float]:
    """The finite numbers under `key`; the first that is none of these is a problem."""
    found: dict[str, float] = {}
    for name, value in _mapping(content, key).items():
        if isinstance(value, int | float) and math.isfinite(value):
            found[name] = float(value)
        elif not name.endswith(UNDEFINED):
            remedy = "the run diverged: lower optimizer.lr" if isinstance(value, float) else AGAIN
            problems.append(f"{END}: {name} is {value}; {remedy}")
    return found
