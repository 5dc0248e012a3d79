"""The verdict of kdx-advise: chosen on val, told on test, scaled students against scaled students."""

from __future__ import annotations

import math

import pytest

from kdx.compare.advice import SCRATCH, Trials, advise, rows


def metrics(accuracy: float, nll: float, ece: float, on_val: float | None = None, tested: bool = True) -> dict[str, float]:
    """Of a trial; unscaled NLL and ECE are much worse, and `on_val` is the accuracy on val."""
    val = {"val/student/accuracy": accuracy if on_val is None else on_val}
    found = {"val/student_scaled/nll": nll, "val/student_scaled/ece": ece, **val}
    if tested:
        found |= {"test/student/accuracy": accuracy, "test/student_scaled/nll": nll, "test/student_scaled/ece": ece}
        found |= {"test/student/nll": 10 * nll, "test/student/ece": 10 * ece}
    return found


def trials(**methods: list[tuple[float, float, float]]) -> Trials:
    return {method: {seed: metrics(*one) for seed, one in enumerate(given)} for method, given in methods.items()}


SCATTERED = [(0.80, 0.50, 0.05), (0.82, 0.52, 0.06), (0.81, 0.51, 0.04)]


def shifted(by: float) -> list[tuple[float, float, float]]:
    """More accurate and better calibrated than SCATTERED, by nearly the same in each seed."""
    return [(a + by, n - by + 0.001 * i, e - by / 2) for i, (a, n, e) in enumerate(SCATTERED)]


def test_each_quantity_has_its_own_verdict() -> None:
    given = [(0.9, 0.6, 0.05), (0.92, 0.62, 0.02), (0.911, 0.61, 0.08)]
    found = {one.name: one.decision for one in advise(trials(scratch=SCATTERED, kd=given))}
    assert found == {
        "test/student/accuracy": "distill",
        "test/student_scaled/nll": "do not distill",
        "test/student_scaled/ece": "undecided",
    }


def test_intervals_are_students_over_paired_seeds() -> None:
    (accuracy, *_) = advise(trials(scratch=SCATTERED, kd=[(0.85, 1, 1), (0.88, 1, 1), (0.85, 1, 1)]))
    gaps = [0.05, 0.06, 0.04]
    mean, spread = 0.05, math.sqrt(sum((gap - 0.05) ** 2 for gap in gaps) / 2)
    half = 4.302652729911275 * spread / math.sqrt(3)  # Student's 97.5 % quantile with 2 degrees of freedom
    assert accuracy.difference.estimate is not None
    interval = accuracy.difference.estimate.interval
    assert (interval.low, interval.high) == (pytest.approx(mean - half), pytest.approx(mean + half))
    assert "DISTILL. kd, the best on val, differs from labels alone by +0.05" in str(accuracy) and str(accuracy).endswith(
        "n = 3"
    )


def test_the_method_is_chosen_on_val_alone() -> None:
    given = {
        SCRATCH: {seed: metrics(0.8, 0.5, 0.05) for seed in range(3)},
        "lucky": {seed: metrics(0.95 + 0.001 * seed, 0.5, 0.05, on_val=0.7) for seed in range(3)},
        "solid": {seed: metrics(0.81 + 0.05 * seed, 0.5, 0.05, on_val=0.9) for seed in range(3)},
    }
    assert advise(given)[0].method == "solid"


def test_without_a_test_split_val_is_told() -> None:
    given = {
        m: {seed: metrics(a + 0.001 * seed, 0.5, 0.05, tested=False) for seed in range(3)}
        for m, a in ((SCRATCH, 0.8), ("kd", 0.9))
    }
    assert advise(given)[0].name == "val/student/accuracy"


def test_one_seed_decides_nothing() -> None:
    (accuracy, *_) = advise(trials(scratch=SCATTERED[:1], kd=[(0.99, 0.1, 0.0)]))
    assert accuracy.decision == "undecided" and "[" not in str(accuracy)


@pytest.mark.parametrize("given", [{"scratch": SCATTERED}, {"kd": SCATTERED}, {}])
def test_without_two_sides_there_is_no_answer(given: dict[str, list[tuple[float, float, float]]]) -> None:
    assert advise(trials(**given)) == []


def test_the_table_has_means_spreads_and_intervals_against_scratch() -> None:
    headings, table = rows(trials(scratch=SCATTERED, kd=shifted(0.05)))
    assert headings[:5] == ["method", "n", "accuracy", "NLL", "ECE"] and len({len(row) for row in (headings, *table)}) == 1
    by_method = {row[0]: dict(zip(headings, row, strict=True)) for row in table}
    assert by_method["scratch"]["accuracy"] == "0.810 ± 0.010" and by_method["scratch"]["Δ accuracy"] == ""
    assert by_method["scratch"]["NLL"].startswith("5.10 ±") and by_method["scratch"]["NLL, scaled"].startswith("0.51")
    assert by_method["kd"]["Δ accuracy"].startswith("[0.0") and by_method["kd"]["Δ NLL, scaled"].startswith("[−0.0")
