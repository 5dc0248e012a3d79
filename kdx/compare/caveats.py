"""Caveats of a comparison: differences between runs in budget, data, commit, hardware and the like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdx.compare.groups import Group
from kdx.compare.labels import word
from kdx.compare.runs import RunRecord

MOST_LABELS = 4  # in one caveat
MARK = "*"  # beside the label of a group or run that has a caveat of its own
Fact = Callable[[RunRecord], str]  # "" if the fact was not recorded


def task(run: RunRecord) -> str:
    """Return the data set and its number of classes as text. Runs of different tasks cannot be compared."""
    data = run.config.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(source, dict):
        return "unknown"
    arguments = {key: value for key, value in source.items() if key not in ("_target_", "root", "download")}
    classes = run.data.get("num_classes", data.get("num_classes"))
    details = [f"{key}={word(value)}" for key, value in arguments.items() if key != "num_classes" and value is not None]
    details += [f"num_classes={classes}"] if classes is not None else []
    return str(source.get("_target_")).rpartition(".")[2] + (f" ({', '.join(details)})" if details else "")


def rule(run: RunRecord) -> str:
    """Return the selection rule of the weights: "last", "ema", "best val/student/accuracy"."""
    selection = run.selection or {"rule": run.config.get("selection"), "monitor": run.config.get("monitor")}
    name = str(selection.get("rule", "unknown"))
    return f"best {selection.get('monitor', 'val')}" if name == "best_val" else name


def few(caveats: Sequence[str]) -> list[str]:
    """Return the first caveats of a kind, and the number of the others."""
    more = len(caveats) - MOST_LABELS
    return list(caveats) if more <= 1 else [*caveats[:MOST_LABELS], f"... and {more} more caveats of this kind"]


def of_runs(groups: Sequence[Group]) -> list[str]:
    """Return the caveats that the runs themselves state, each kind once, with the groups that have it."""
    holders: dict[str, dict[str, None]] = {}
    texts: dict[str, str] = {}
    for group in groups:
        for run in group.finished.values():
            for kind, text in run.caveats.items():
                holders.setdefault(kind, {})[group.label] = None
                texts.setdefault(kind, text)
    return [f"{MARK} {texts[kind].rstrip('.')} ({_listed(list(labels))})" for kind, labels in holders.items()]


def of_facts(groups: Sequence[Group]) -> list[str]:
    """Return a caveat for each fact that differs between the finished runs, with the groups that have each value."""
    caveats = []
    for name, fact in FACTS.items():
        holders: dict[str, dict[str, None]] = {}
        for group in groups:
            for run in group.finished.values():
                if value := fact(run):
                    holders.setdefault(value, {})[group.label] = None
        if len(holders) > 1:
            values = "; ".join(f"{value} ({_listed(list(labels))})" for value, labels in holders.items())
            caveats.append(f"{name} differ: {values}")
    dirty = [group.label for group in groups if any(run.provenance.get("git_dirty") for run in group.finished.values())]
    if dirty:
        caveats.append(f"the code had uncommitted changes, so the commit alone does not reproduce these runs: {_listed(dirty)}")
    return caveats


def of_tasks(groups: Sequence[Group]) -> list[str]:
    """Return a caveat if the tasks of the groups differ."""
    tasks: dict[str, list[str]] = {}
    for group in groups:
        tasks.setdefault(task(group.runs[0]), []).append(group.label)
    if len(tasks) < 2:
        return []
    names = "; ".join(f"{name} ({_listed(labels)})" for name, labels in tasks.items())
    return [f"the tasks differ: {names}. Numbers of different tasks are not paired and cannot be compared"]


def of_seeds(groups: Sequence[Group], baselines: Sequence[Group | None]) -> list[str]:
    """Return caveats on seeds that a group and its baseline do not share; without baselines, on seeds some groups lack."""
    caveats = []
    for group, baseline in zip(groups, baselines, strict=True):
        if baseline is not None and set(group.finished) != set(baseline.finished):
            both = sorted(group.finished.keys() & baseline.finished.keys())
            caveats.append(
                f"seeds differ: {group.label} has {_seeds(group)}, {baseline.label} has {_seeds(baseline)}; "
                + (f"paired seeds: {', '.join(map(str, both))}" if both else "no seed can be paired: run the missing seeds")
            )
    caveats = few(caveats)
    if not any(baselines) and len({frozenset(group.finished) for group in groups}) > 1:
        caveats.append("seeds differ: " + _by_seeds(groups))
    return caveats


def of_states(runs: Sequence[RunRecord], groups: Sequence[Group]) -> list[str]:
    """Return caveats on runs that are excluded (damaged, unfinished, repeated) and on runs that were not tested."""
    damaged = [f"damaged run excluded: {run.path} ({run.problem})" for run in runs if run.state == "damaged"]
    if damaged:
        damaged.append("means exclude damaged runs; report diverged runs as part of the result")
    tested = any(name.startswith("test/") for group in groups for run in group.finished.values() for name in run.metrics)
    caveats: list[str] = []
    for group in groups:
        by_state = {state: sum(run.state == state for run in group.unfinished) for state in ("running", "failed", "stopped")}
        unfinished = [f"{count} {state}" for state, count in by_state.items() if count]
        if unfinished:
            caveats.append(f"excluded as unfinished: {' and '.join(unfinished)} of {len(group.runs)} runs of {group.label}")
        count = sum(run.state == "finished" for run in group.runs)
        if count > len(group.finished):
            caveats.append(f"{group.label} has {count} runs for {len(group.finished)} seeds: the latest run of a seed is used")
        untested = [run for run in group.finished.values() if not any(name.startswith("test/") for name in run.metrics)]
        if untested and tested:
            caveats.append(f"{group.label}: {len(untested)} of {len(group.finished)} runs were not tested (test=false)")
    pruned = sum(run.state == "pruned" for run in runs)
    ended_early = [f"excluded: {pruned} trials of a search that were pruned"] if pruned else []
    return damaged + ended_early + few(caveats)


def _seeds(group: Group) -> str:
    return ", ".join(map(str, group.finished)) or "none"


def _by_seeds(groups: Sequence[Group]) -> str:
    by_seeds: dict[str, list[str]] = {}
    for group in groups:
        by_seeds.setdefault(_seeds(group), []).append(group.label)
    return "; ".join(f"{seeds} ({_listed(labels)})" for seeds, labels in by_seeds.items())


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
    return ", ".join(labels[:MOST_LABELS]) + more


def _config(path: str) -> Callable[[RunRecord], Any]:
    return lambda run: run.flat_config.get(path)


def _text(value: Any) -> str:
    return "" if value is None else word(value)


def _budget(run: RunRecord) -> str:
    epochs, steps = _config("trainer.max_epochs")(run), _config("trainer.max_steps")(run)
    parts = [f"{epochs} epochs" if epochs not in (None, -1) else "", f"{steps} steps" if steps not in (None, -1) else ""]
    return ", ".join(part for part in parts if part)


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
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


FACTS: Mapping[str, Fact] = {
    "budgets": _budget,
    "batch sizes": _batch,
    "data (fingerprints)": lambda run: str(run.data.get("fingerprint") or "")[:12],
    "selection rules": rule,
    "commits": lambda run: str(run.provenance.get("git_commit") or "")[:9],
    "commits of the project": lambda run: str(run.provenance.get("project_commit") or "")[:9],
    "versions of kdx": _version("kdx"),
    "versions of torch": _version("torch"),
    "hardware types": _hardware,
    "cost protocols": lambda run: str(run.cost.get("protocol") or "")[:60],
}
