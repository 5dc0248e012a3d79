"""The selection of the metrics that a comparison shows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from kdx.compare.runs import RunRecord

QUALITY = ("student/accuracy", "student/nll", "student/ece", "student/entropy", "teacher/accuracy", "teacher/ece")
COST = (
    "student/parameters",
    "student/macs",
    "student/latency_ms_1",
    "images_per_second",
    "peak_memory_mb",
    "seconds",
    "teacher_share",
    "energy_joules",
)
LAST = "last/"  # prefix of the metrics of the last weights


def numbers(run: RunRecord) -> dict[str, float]:
    """Return all metrics of a run by name; `last/...` are metrics of the last weights, if other weights were selected."""
    return {**run.metrics, **{LAST + name: value for name, value in run.last.items()}}


def added_metrics(runs: Iterable[RunRecord]) -> list[str]:
    """What the runs measure beside the built-in metrics, without the split: "student/margin", or "nontarget_kl" of a pair."""
    names = dict.fromkeys(name for run in runs for name in run.added_metrics)
    return [form for name in names for form in (f"student/{name}", name)]


def default_metrics(runs: Sequence[RunRecord]) -> tuple[list[str], str]:
    """Return the default metrics that the runs have (quality on test, then cost), and a caveat ("" if there is none).

    If no run was tested, quality on val is used, and the caveat says so.
    """
    available = _available(runs)
    split = "test" if any(name.startswith("test/") for name in available) else "val"
    names = [f"{split}/{name}" for name in (*QUALITY, *added_metrics(runs))] + list(COST)
    chosen = [name for name in names if name in available]
    if split == "test" or not chosen:
        return chosen, ""
    selected_on_val = any(run.selection.get("rule") == "best_val" for run in runs)
    bias = ", on which the weights were selected, so they are optimistic" if selected_on_val else ""
    return chosen, f"no run was tested (test=false): the numbers are from val{bias}"


def matching_metrics(patterns: Iterable[str], runs: Sequence[RunRecord]) -> list[str]:
    """Return the metrics that match the names and globs, in the order of the patterns.

    Raises:
        ValueError: If a pattern matches no metric; the message suggests the nearest names.
    """
    available = _available(runs)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = [pattern] if pattern in available else [name for name in available if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(f"No run has the metric '{pattern}'.{nearest(pattern, available)}")
        chosen |= dict.fromkeys(matches)
    return list(chosen)


def nearest(text: str, candidates: Iterable[str], heading: str = "Available") -> str:
    """Return a sentence that suggests the candidates most similar to `text`, or lists the first 12 if none is similar."""
    names = list(candidates)
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(repr(name) for name in close)}?"
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" {heading}: {listed}." if names else ""


def _available(runs: Sequence[RunRecord]) -> dict[str, None]:
    return dict.fromkeys(name for run in runs for name in numbers(run))
