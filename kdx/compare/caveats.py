"""What has to be said beside a comparison: everything in which the runs are not alike though they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdx.compare.groups import Group
from kdx.compare.labels import word
from kdx.compare.runs import RunRecord

SHOWN = 4  # labels in one caveat
Fact = Callable[[RunRecord], str]  # empty where it was not recorded


def task(run: RunRecord) -> str:
    """What is to be learned: the data set and its number of classes. Runs of different tasks cannot be compared."""
    data = run.config.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(source, dict):
        return "unknown"
    own = {key: value for key, value in source.items() if key not in ("_target_", "root", "download") and value is not None}
    classes = run.data.get("num_classes", data.get("num_classes"))
    details = [f"{key}={word(value)}" for key, value in own.items() if key != "num_classes"]
    details += [f"num_classes={classes}"] if classes is not None else []
    return str(source.get("_target_")).rpartition(".")[2] + (f" ({', '.join(details)})" if details else "")


def rule(run: RunRecord) -> str:
    """How the weights were chosen: "last", "ema", "best val/student/accuracy"."""
    selection = run.selection or {"rule": run.config.get("selection"), "monitor": run.config.get("monitor")}
    name = str(selection.get("rule", "unknown"))
    return f"best {selection.get('monitor', 'val')}" if name == "best_val" else name


def few(found: Sequence[str]) -> list[str]:
    """The first caveats of a kind, and how many more there are."""
    more = len(found) - SHOWN
    return list(found) if more <= 1 else [*found[:SHOWN], f"... and {more} more caveats like this one"]


def of_facts(groups: Sequence[Group]) -> list[str]:
    """A caveat for each fact that is not the same in all finished runs, with who has what."""
    found = []
    for name, fact in FACTS.items():
        holders: dict[str, dict[str, None]] = {}
        for group in groups:
            for run in group.finished.values():
                if value := fact(run):
                    holders.setdefault(value, {})[group.label] = None
        if len(holders) > 1:
            told = "; ".join(f"{value} ({_listed(list(labels))})" for value, labels in holders.items())
            found.append(f"{name} differ: {told}")
    dirty = [group.label for group in groups if any(run.provenance.get("git_dirty") for run in group.finished.values())]
    if dirty:
        found.append(f"the code had changes that were not committed: {_listed(dirty)}; its commit does not say all")
    return found


def of_tasks(groups: Sequence[Group]) -> list[str]:
    """A caveat if the groups learned different tasks."""
    tasks: dict[str, list[str]] = {}
    for group in groups:
        tasks.setdefault(task(group.runs[0]), []).append(group.label)
    if len(tasks) < 2:
        return []
    told = "; ".join(f"{name} ({_listed(labels)})" for name, labels in tasks.items())
    return [f"the tasks differ: {told}. Their numbers stand side by side, but are not paired and cannot be compared"]


def of_seeds(groups: Sequence[Group], baselines: Sequence[Group | None]) -> list[str]:
    """Caveats on seeds that a group and its baseline do not share, else on seeds that not all groups have."""
    found = []
    for group, baseline in zip(groups, baselines, strict=True):
        if baseline is not None and set(group.finished) != set(baseline.finished):
            both = sorted(group.finished.keys() & baseline.finished.keys())
            found.append(
                f"seeds differ: {group.label} has {_seeds(group)}, {baseline.label} has {_seeds(baseline)}; "
                + (f"paired are {', '.join(map(str, both))}" if both else "none can be paired: run the missing seeds")
            )
    found = few(found)
    if not any(baselines) and len({frozenset(group.finished) for group in groups}) > 1:
        found.append("seeds differ: " + _by_seeds(groups))
    return found


def of_states(runs: Sequence[RunRecord], groups: Sequence[Group]) -> list[str]:
    """Caveats on runs that do not count: damaged, unfinished, repeated; and on those that were not tested."""
    damaged = [f"left out: {run.path} is damaged: {run.problem}" for run in runs if run.state == "damaged"]
    if damaged:
        damaged.append("means are of the runs that went well; a run that diverges belongs to the result too")
    tested = any(name.startswith("test/") for group in groups for run in group.finished.values() for name in run.metrics)
    found: list[str] = []
    for group in groups:
        open_ = {state: [run for run in group.runs if run.state == state] for state in ("going", "stopped")}
        told = [f"{len(those)} {state}" for state, those in open_.items() if those]
        if told:
            found.append(f"not counted: of {len(group.runs)} runs of {group.label}, {' and '.join(told)}")
        count = sum(run.state == "finished" for run in group.runs)
        if count > len(group.finished):
            found.append(f"{group.label} was run {count} times with {len(group.finished)} seeds: the latest of a seed counts")
        untested = [run for run in group.finished.values() if not any(name.startswith("test/") for name in run.metrics)]
        if untested and tested:
            found.append(f"{group.label}: {len(untested)} of {len(group.finished)} runs without test (test=false)")
    return damaged + few(found)


def _seeds(group: Group) -> str:
    return ", ".join(map(str, group.finished)) or "none"


def _by_seeds(groups: Sequence[Group]) -> str:
    by_seeds: dict[str, list[str]] = {}
    for group in groups:
        by_seeds.setdefault(_seeds(group), []).append(group.label)
    return "; ".join(f"{seeds} ({_listed(labels)})" for seeds, labels in by_seeds.items())


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(labels[:SHOWN]) + more


def _config(path: str) -> Callable[[RunRecord], Any]:
    return lambda run: run.flat_config.get(path)


def _text(value: Any) -> str:
    return "" if value is None else word(value)


def _budget(run: RunRecord) -> str:
    epochs, steps = _config("trainer.max_epochs")(run), _config("trainer.max_steps")(run)
    told = [f"{epochs} epochs" if epochs not in (None, -1) else "", f"{steps} steps" if steps not in (None, -1) else ""]
    return ", ".join(part for part in told if part)


def _batch(run: RunRecord) -> str:
    size, times = _config("data.batch_size")(run), _config("trainer.accumulate_grad_batches")(run) or 1
    return "" if size is None else str(size * times)


def _version(package: str) -> Fact:
    return lambda run: _text(_inside(run.provenance, "versions").get(package))


def _hardware(run: RunRecord) -> str:
    hardware = _inside(run.provenance, "hardware")
    gpus = hardware.get("gpus")
    if isinstance(gpus, list) and gpus:
        return f"{len(gpus)} x {gpus[0]}"
    return f"{hardware['cpu_cores']} CPU cores" if "cpu_cores" in hardware else ""


def _inside(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = mapping.get(key)
    return found if isinstance(found, dict) else {}


FACTS: Mapping[str, Fact] = {
    "budgets": _budget,
    "batch sizes": _batch,
    "data (fingerprints)": lambda run: str(run.data.get("fingerprint") or "")[:12],
    "selection rules": rule,
    "commits": lambda run: str(run.provenance.get("git_commit") or "")[:9],
    "commits of the project": lambda run: str(run.provenance.get("project_commit") or "")[:9],
    "versions of kdx": _version("kdx"),
    "versions of torch": _version("torch"),
    "kinds of hardware": _hardware,
    "protocols of cost": lambda run: str(run.cost.get("protocol") or "")[:60],
}
