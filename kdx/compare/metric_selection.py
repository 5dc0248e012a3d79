"""Which metrics a comparison shows."""

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
LAST = "last/"  # in front of a metric of the last weights


def numbers(run: RunRecord) -> dict[str, float]:
    """All metrics of a run; those of its last weights, where others were selected, as `last/...`."""
    return {**run.metrics, **{LAST + name: value for name, value in run.last.items()}}


def added_metrics(runs: Iterable[RunRecord]) -> list[str]:
    """What the runs measure beside the built-in metrics, without the split: "student/margin", or "nontarget_kl" of a pair."""
    names = dict.fromkeys(name for run in runs for name in run.added_metrics)
    return [form for name in names for form in (f"student/{name}", name)]


def default_metrics(runs: Sequence[RunRecord]) -> tuple[list[str], str]:
    """Quality on test, added metrics and cost, as far as there are any; and a caveat if val has to stand in for test."""
    known = _known(runs)
    split = "test" if any(name.startswith("test/") for name in known) else "val"
    names = [f"{split}/{name}" for name in (*QUALITY, *added_metrics(runs))] + list(COST)
    found = [name for name in names if name in known]
    if split == "test" or not found:
        return found, ""
    chose = sorted({str(run.selection.get("rule")) for run in runs} & {"best_val"})
    worse = ", which also chose the weights, so they are too good" if chose else ""
    return found, f"no run was tested (test=false): the numbers are of val{worse}"


def asked_metrics(asked: Iterable[str], runs: Sequence[RunRecord]) -> list[str]:
    """The metrics that the names and globs mean, in their order. ValueError, with the nearest name, if one means none."""
    known = _known(runs)
    found: dict[str, None] = {}
    for pattern in asked:
        matches = [pattern] if pattern in known else [name for name in known if fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(f"no run has the metric '{pattern}'.{nearest(pattern, known)}")
        found |= dict.fromkeys(matches)
    return list(found)


def nearest(text: str, known: Iterable[str], what: str = "There are") -> str:
    """A sentence with the names that are most like `text`; if none is, with the first few there are."""
    names = list(known)
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(repr(name) for name in close)}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" {what}: {shown}." if names else ""


def _known(runs: Sequence[RunRecord]) -> dict[str, None]:
    return dict.fromkeys(name for run in runs for name in numbers(run))
