"""Metric names in words, with the unit and which of two values is better."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

WHAT = {
    "nll": "NLL",
    "ece": "ECE",
    "ece_by_chance": "ECE of perfect calibration, by chance",
    "ece_mass": "ECE, equal mass",
    "ece_classwise": "ECE, classwise",
    "mce": "MCE",
    "rms_ce": "RMS calibration error",
    "auroc": "AUROC",
    "top5": "top-5 accuracy",
    "kl": "KL to the teacher",
    "agreement": "agreement",
    "macs": "MACs",
    "latency_ms_1": "latency, batch 1",
    "latency_ms_batch": "latency, training batch",
    "images_per_second": "images per second",
    "peak_memory_mb": "peak memory",
    "energy_joules": "energy",
    "seconds": "time without the teacher's",
    "teacher_seconds": "time of the teacher's training",
    "teacher_share": "teacher's share of the time",
    "lr": "learning rate",
    "lambda": "lambda (adversary's weight)",
}
UNITS = {
    "entropy": "nats",
    "nll": "nats",
    "kl": "nats",
    "latency_ms_1": "ms",
    "latency_ms_batch": "ms",
    "peak_memory_mb": "MB",
    "energy_joules": "J",
    "seconds": "s",
    "teacher_seconds": "s",
}
# For costs, and for runs of older versions, whose metrics.json has no `higher_is_better`.
MORE_IS_BETTER = ("accuracy", "top5", "agreement", "auroc", "images_per_second")
SPOKEN = {
    "resolution.student": "px",
    "temperature.value": "T",
    "trainer.max_epochs": "epochs",
    "student.architecture": "student",
}
COSTS = (
    "parameters",
    "macs",
    "latency_ms_1",
    "latency_ms_batch",
    "seconds",
    "teacher_seconds",
    "energy_joules",
    "peak_memory_mb",
)
PREFERRED = (
    "student/accuracy",
    "student/ece",
    "student/nll",
    "student/entropy",
    "agreement",
    "teacher/accuracy",
    "teacher/ece",
)


def what(name: str) -> str:
    """Return the quantity in words: "test/student/ece" -> "ECE"."""
    last = name.rpartition("/")[2]
    return WHAT.get(last, last.replace("_", " "))


def whose(name: str) -> str:
    """Return network and split: "test/student_at_4/ece" -> "student at 4, test"; empty if the name has neither."""
    parts = name.split("/")[:-1]
    if parts and parts[0] in ("val", "test", "train", "preflight"):
        parts = [*parts[1:], parts[0]]
    return ", ".join(part.replace("_", " ") for part in parts)


def unit(name: str) -> str:
    """Return the unit; empty for a fraction or a count."""
    return UNITS.get(name.rpartition("/")[2], "")


def titled(name: str) -> str:
    """Return quantity, network, split and unit: "ECE (student, test)", "entropy (student, val), nats"."""
    network, in_unit = whose(name), unit(name)
    return what(name) + (f" ({network})" if network else "") + (f", {in_unit}" if in_unit else "")


def direction(name: str, higher_is_better: Mapping[str, bool | None] | None = None) -> str:
    """Return "more" or "less": which of two values is better. Empty where neither is, such as entropy.

    Args:
        name: Flat name, "test/student/accuracy".
        higher_is_better: What the runs say, by quantity ("accuracy"); see `directions`.
    """
    last = name.rpartition("/")[2]
    if higher_is_better is not None and last in higher_is_better:
        return {True: "more", False: "less", None: ""}[higher_is_better[last]]
    if last in MORE_IS_BETTER:
        return "more"
    if last.endswith("_by_chance"):
        return ""
    worse = ("nll", "brier", "kl", "loss", *COSTS)
    return "less" if last in worse or "ece" in last or last in ("mce", "rms_ce", "brier_reliability") else ""


def directions(runs: Iterable[Mapping[str, bool | None]]) -> dict[str, bool | None]:
    """Return by quantity whether higher is better, from what each run says; None where runs contradict each other."""
    merged: dict[str, bool | None] = {}
    for higher_is_better in runs:
        for name, value in higher_is_better.items():
            merged[name] = value if merged.get(name, value) == value else None
    return merged


def split_of(metrics: Iterable[str]) -> str:
    """Return "test" if the student was tested, else "val"."""
    return "test" if any(name.startswith("test/student/") for name in metrics) else "val"


def ordered(names: Iterable[str]) -> list[str]:
    """Return the names without repeats, the most important first."""

    def place(name: str) -> tuple[int, int, str]:
        split, _, rest = name.partition("/")
        order = PREFERRED.index(rest) if rest in PREFERRED else len(PREFERRED)
        return (("test", "val").index(split) if split in ("test", "val") else 2, order, name)

    return sorted(set(names), key=place)


def finite(metrics: Mapping[str, float], name: str) -> float | None:
    """Return the metric, or None if it is missing or not a finite number."""
    value = metrics.get(name)
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def shortened(text: str, labels: Iterable[str]) -> str:
    """Return a text with the labels of groups in it as `short` has them; other overrides in it, such as remedies, stay."""
    known = [form for label in labels for form in (label, label.removeprefix("baseline=")) if "." in form]
    if not known:
        return text
    pattern = "|".join(map(re.escape, sorted(set(known), key=len, reverse=True)))
    return re.sub(rf"(?<![\w.=])(?:{pattern})(?![\w=]|\.\w)", lambda found: short(found[0]), text)


def short(label: str, most: int = 60) -> str:
    """Return the label of a group for a legend: the path of an override is shortened to its last part or a common name."""
    parts = []
    for part in label.split(" "):
        path, equals, value = part.partition("=")
        if equals and "." in path:
            path = SPOKEN.get(path, path.rpartition(".")[2])
        parts.append(f"{path}{equals}{value}")
    text = " ".join(parts)
    return text if len(text) <= most else text[: most - 1] + "…"
