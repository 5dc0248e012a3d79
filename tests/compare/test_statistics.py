"""Intervals against SciPy, their coverage by simulation, and the verdict rule at its edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from kdx.compare.statistics import (
    Estimate,
    Interval,
    Region,
    bootstrap_interval,
    estimate,
    joint,
    margin,
    paired,
    student_interval,
    verdict,
)

Law = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


@pytest.mark.parametrize("n", [2, 5, 30])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_student_interval_equals_scipys(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    found = student_interval(values, confidence)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_plain_bootstrap_equals_scipys() -> None:
    values = np.random.default_rng(0).exponential(1, 20)
    found = bootstrap_interval(values, widen=False)
    other = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1))
    expected = other.confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bootstrap_of_the_same_values_is_the_same() -> None:
    assert bootstrap_interval([1.0, 2.0, 4.0]) == bootstrap_interval([1.0, 2.0, 4.0])


def difference(g: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Of two runs with the same skewed law: what a paired difference is where there is no effect."""
    return g.standard_exponential(shape) - g.standard_exponential(shape)


LAWS: dict[str, tuple[Law, float, float]] = {  # law, lowest and highest coverage of the t interval that we accept
    "normal": (lambda g, shape: g.standard_normal(shape), 0.94, 0.96),
    "difference of two skewed runs": (difference, 0.95, 0.98),
    "heavy tails": (lambda g, shape: g.standard_t(3, shape), 0.95, 0.98),
    "difference of two uniform runs": (lambda g, shape: g.random(shape) - g.random(shape), 0.935, 0.96),
}


def student_coverage(values: np.ndarray) -> float:
    """How often the interval holds the true mean, 0, over the rows of `values`."""
    return float(np.mean([(i := student_interval(row)).low <= 0 <= i.high for row in values]))


@pytest.mark.parametrize("law", LAWS)
def test_student_interval_covers_95_percent_at_5_seeds(law: str) -> None:
    draw, low, high = LAWS[law]
    assert low <= student_coverage(draw(np.random.default_rng(0), (6000, 5))) <= high


def test_bootstrap_is_too_narrow_at_5_seeds_and_widening_mends_most_of_it() -> None:
    values = np.random.default_rng(1).standard_normal((1500, 5))

    def coverage(widen: bool) -> float:
        intervals = [bootstrap_interval(row, widen=widen, resamples=2000) for row in values]
        return float(np.mean([interval.low <= 0 <= interval.high for interval in intervals]))

    plain, widened = coverage(False), coverage(True)
    assert 0.80 < plain < 0.88  # why verdicts do not use it
    assert 0.91 < widened < 0.95
    assert plain < widened < student_coverage(values) + 0.005


def test_claims_without_an_effect_hold_in_one_of_forty() -> None:
    values = np.random.default_rng(2).standard_normal((6000, 5))
    held = np.mean([verdict(student_interval(row), Region(low=0)) == "holds" for row in values])
    assert 0.019 < held < 0.031


def test_pairing_takes_the_noise_out_that_seeds_share() -> None:
    g = np.random.default_rng(3)
    shared = dict(enumerate(g.normal(0, 1, 5)))
    first = {seed: value + 0.1 + g.normal(0, 0.01) for seed, value in shared.items()}
    second = {seed: shared[seed] for seed in reversed(shared)}
    differences = paired(first, second)
    assert list(differences) == list(first)
    assert verdict(estimate(list(differences.values())).interval, Region(low=0)) == "holds"
    unpaired = estimate([a - b for a, b in zip(first.values(), second.values(), strict=True)])
    assert verdict(unpaired.interval, Region(low=0)) == "undecided"


def test_pairing_leaves_out_seeds_that_one_lacks() -> None:
    assert paired({0: 3.0, 1: 5.0}, {1: 1.0, 2: 9.0}) == {1: 4.0}


@pytest.mark.parametrize(
    ("low", "high", "region", "expected"),
    [
        (0.1, 0.2, Region(low=0), "holds"),
        (-0.2, -0.1, Region(low=0), "fails"),
        (-0.1, 0.2, Region(low=0), "undecided"),
        (0.0, 0.2, Region(low=0), "undecided"),  # zero is not more than zero
        (-0.2, 0.0, Region(low=0), "fails"),
        (-0.2, -0.1, Region(high=0), "holds"),
        (-0.5, 0.5, Region(-1, 1), "holds"),
        (-0.5, 1.5, Region(-1, 1), "undecided"),
        (-2.0, 2.0, Region(-1, 1), "undecided"),
        (1.0, 2.0, Region(-1, 1), "fails"),
        (-3.0, -2.0, Region(-1, 1), "fails"),
        (-0.004, 0.02, Region(low=-0.005), "holds"),
    ],
)
def test_verdict(low: float, high: float, region: Region, expected: str) -> None:
    assert verdict(Interval(low, high), region) == expected


def test_a_claim_of_parts() -> None:
    assert joint(["holds", "holds"]) == "holds"
    assert joint(["holds", "undecided"]) == "undecided"
    assert joint(["undecided", "fails", "holds"]) == "fails"
    assert joint(["holds", "not run"]) == "not run"
    assert joint([]) == "not run"


@pytest.mark.parametrize("region", [Region(low=0.5), Region(high=-0.5), Region(-0.7, 0.7)])
@pytest.mark.parametrize("mean", [-2.0, -0.5, 0.0, 0.6, 1.5])
def test_margin_says_what_the_verdict_says(region: Region, mean: float) -> None:
    found = estimate(np.random.default_rng(4).normal(0, 0.3, 5) + mean)
    low, middle, high = margin(found, region)
    assert low <= middle <= high
    expected = "holds" if low > 0 else "fails" if high <= 0 else "undecided"
    assert verdict(found.interval, region) == expected


def test_margin_of_equal_values_is_far_and_finite() -> None:
    point = Interval(1.0, 1.0)
    low, _, high = margin(Estimate(5, 1.0, 0.0, point, point), Region(low=0))
    assert math.isfinite(low) and low == high > 1e6


def test_too_few_or_infinite_values_are_refused() -> None:
    for values in ([], [1.0]):
        with pytest.raises(ValueError, match="At least two seeds"):
            estimate(values)
    with pytest.raises(ValueError, match="diverged"):
        estimate([1.0, float("nan")])
    with pytest.raises(ValueError, match="lower bound below"):
        Region(1.0, 0.0)
