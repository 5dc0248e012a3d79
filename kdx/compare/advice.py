"""Whether distillation is worth it: each method against labels alone, chosen on val and told on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdx.compare.comparison import PairedDifference, difference_of
from kdx.compare.metric_names import what
from kdx.compare.statistics import number, paired

SCRATCH = "scratch"
SCALED = "student_scaled"  # the student at the temperature that calibrates it on val
# What is judged, whether more of it is better, and of which student. Every student can be scaled afterwards, at no cost.
JUDGED = (("accuracy", 1, "student"), ("nll", -1, SCALED), ("ece", -1, SCALED))
Decision = Literal["distill", "do not distill", "undecided"]
Trials = Mapping[str, Mapping[int, Mapping[str, float]]]  # method -> seed -> metrics


@dataclass(frozen=True)
class Advice:
    """The answer for one quantity: the method that is best on val, and its paired difference to labels alone on `split`."""

    name: str  # of the metric
    method: str
    difference: PairedDifference
    decision: Decision

    def __str__(self) -> str:
        gap = f"{'+' if self.difference.mean > 0 else ''}{number(self.difference.mean)}"
        if self.difference.estimate is not None:
            interval = self.difference.estimate.interval
            gap += f" [{number(interval.low)}, {number(interval.high)}]"
        quantity = what(self.name)
        return (
            f"{quantity[0].upper()}{quantity[1:]}: {self.decision.upper()}. {self.method}, the best on val, differs from "
            f"labels alone by {gap}, n = {len(self.difference.values)}"
        )


def split_of(trials: Trials) -> str:
    """Return "test" if the trials were tested, else "val"."""
    return (
        "test" if any("test/student/accuracy" in metrics for seeds in trials.values() for metrics in seeds.values()) else "val"
    )


def values_of(trials: Trials, method: str, name: str) -> dict[int, float]:
    """Return a metric of a method by seed."""
    return {seed: metrics[name] for seed, metrics in trials.get(method, {}).items() if name in metrics}


def advise(trials: Trials) -> list[Advice]:
    """Return the answer for accuracy, NLL and ECE, as far as there are trials of a method and of labels alone.

    Of the methods, the one with the best mean on val is compared, on test. It is worth it if the 95 % interval of the paired
    difference is on the better side of 0, and not if it is on the worse side. NLL and ECE are those of students that are
    scaled on val, the one that learned from labels alone too.
    """
    split, answers = split_of(trials), []
    for quantity, sign, student in JUDGED:
        on_val = {
            method: sign * float(np.mean(list(values.values())))
            for method in trials
            if method != SCRATCH and (values := values_of(trials, method, f"val/{student}/{quantity}"))
        }
        if not on_val:
            continue
        best, name = max(on_val, key=lambda method: on_val[method]), f"{split}/{student}/{quantity}"
        differences = paired(values_of(trials, best, name), values_of(trials, SCRATCH, name))
        if differences:
            difference = difference_of(differences)
            answers.append(Advice(name, best, difference, _decision(difference, sign)))
    return answers


def _decision(difference: PairedDifference, sign: int) -> Decision:
    if difference.estimate is None:
        return "undecided"
    low, high = sorted(sign * end for end in (difference.estimate.interval.low, difference.estimate.interval.high))
    return "distill" if low > 0 else "do not distill" if high < 0 else "undecided"


def rows(trials: Trials) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of a table: each method's mean ± standard deviation over seeds, and its differences."""
    split = split_of(trials)
    shown = [f"{split}/{student}/{quantity}" for student in ("student", SCALED) for quantity in ("accuracy", "nll", "ece")]
    shown.remove(f"{split}/{SCALED}/accuracy")  # scaling does not change it
    judged = [f"{split}/{student}/{quantity}" for quantity, _, student in JUDGED]
    headings = ["method", "n", *map(_heading, shown), *(f"Δ {_heading(name)}" for name in judged)]
    table = []
    for method in trials:
        cells = [_spread(list(values_of(trials, method, name).values())) for name in shown]
        gaps = [paired(values_of(trials, method, name), values_of(trials, SCRATCH, name)) for name in judged]
        table.append([method, str(len(trials[method])), *cells, *("" if method == SCRATCH else _gap(gap) for gap in gaps)])
    return headings, table


def _heading(name: str) -> str:
    _, student, quantity = name.split("/")
    short = quantity if quantity == "accuracy" else quantity.upper()
    return f"{short}, scaled" if student == SCALED else short


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return number(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _gap(values: Mapping[int, float]) -> str:
    if not values:
        return ""
    difference = difference_of(values)
    if difference.estimate is None:
        return number(difference.mean)
    return f"[{number(difference.estimate.interval.low)}, {number(difference.estimate.interval.high)}]"
