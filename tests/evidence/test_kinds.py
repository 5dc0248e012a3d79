"""Each kind of test compares what it says, pairs by seed, and claims the right side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from kdx.evidence.kinds import Correlation, Crossover, Difference, Equivalence, Level, Order, Test

INF = float("inf")
NUMBERS = {
    "low": {0: 1.0, 1: 1.1, 2: 1.2},
    "middle": {0: 2.0, 1: 2.2, 2: 2.1},
    "high": {2: 3.3, 1: 3.1, 0: 3.0},  # seeds in another order
}


def read(system: str, metric: str) -> Mapping[int, float]:
    """The numbers of a metric "m"."""
    assert metric == "m"
    return NUMBERS[system]


def outcome(test: Test) -> list[tuple[str, float, str]]:
    """(what is compared, mean, verdict) of each comparison."""
    found = list(test.comparisons(read))
    assert {name for comparison in found for name in comparison.what.split(" − ")} <= set(test.systems)
    return [(c.what, round(c.estimate.mean, 6), c.verdict) for c in found]


def test_difference_compares_each_with_each() -> None:
    test = Difference(["low", "middle"], "m", "lower", "high")
    assert outcome(test) == [("low − high", -2.033333, "holds"), ("middle − high", -1.033333, "holds")]
    assert outcome(Difference("low", "m", "higher", ["middle", "high"])) == [
        ("low − middle", -1.0, "fails"),
        ("low − high", -2.033333, "fails"),
    ]


def test_difference_is_paired_by_seed_not_by_place() -> None:
    (comparison,) = Difference("high", "m", "higher", "low").comparisons(read)
    assert comparison.values == pytest.approx({0: 2.0, 1: 2.0, 2: 2.1})


@pytest.mark.parametrize(("margin", "expected"), [(0.5, "fails"), (2.0, "undecided"), (3.0, "holds")])
def test_difference_with_a_margin_may_be_a_little_worse(margin: float, expected: str) -> None:
    assert outcome(Difference("low", "m", "higher", "high", margin=margin))[0][2] == expected
    assert outcome(Difference("high", "m", "lower", "low", margin=margin))[0][2] == expected


def test_order_compares_neighbors() -> None:
    assert outcome(Order(["low", "middle", "high"], "m", "rises")) == [
        ("middle − low", 1.0, "holds"),
        ("high − middle", 1.033333, "holds"),
    ]
    assert [verdict for *_, verdict in outcome(Order(["low", "middle", "high"], "m", "falls"))] == ["fails", "fails"]


@pytest.mark.parametrize(
    ("early", "late", "better", "expected"),
    [
        (["high", "low"], ["low", "high"], "lower", ["holds", "holds"]),
        (["low", "high"], ["low", "high"], "lower", ["fails", "holds"]),
        (["low", "high"], ["high", "low"], "higher", ["holds", "holds"]),
        (["high", "low", "middle"], ["low", "high", "middle"], "lower", ["holds"] * 4),
    ],
)
def test_crossover_is_worse_early_and_better_late(early: list[str], late: list[str], better: str, expected: list[str]) -> None:
    assert [verdict for *_, verdict in outcome(Crossover(early, late, "m", better))] == expected


@pytest.mark.parametrize(("margin", "expected"), [(0.5, "fails"), (1.0, "undecided"), (2.0, "holds")])
def test_equivalence_bounds_the_difference_both_ways(margin: float, expected: str) -> None:
    for pair in (["low", "middle"], ["middle", "low"]):
        assert outcome(Equivalence(pair, "m", margin))[0][2] == expected


def test_level_bounds_the_number_itself() -> None:
    assert outcome(Level("low", "m", above=0.5)) == [("low", 1.1, "holds")]
    assert [verdict for *_, verdict in outcome(Level(["low", "high"], "m", below=2.0))] == ["holds", "fails"]
    (comparison,) = Level("low", "m", above=0.5, below=2.0).comparisons(read)
    assert (comparison.claimed.low, comparison.claimed.high) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Order(["one"], "m", "rises"), "at least two systems"),
        (lambda: Equivalence(["one"], "m", 1.0), "at least two systems"),
        (lambda: Equivalence(["one", "two"], "m", margin=0.0), "margin"),
        (lambda: Crossover(["a", "b"], ["a"], "m", "lower"), "the same number of systems, at least two"),
        (lambda: Level("a", "m"), "above"),
        (lambda: Level("a", "m", above=2.0, below=1.0), "lower bound below"),
        (lambda: Difference("a", "m", direction="smaller", than="b"), "direction"),
        (lambda: Difference("a", "m", "lower", "b", margin=-1.0), "margin"),
    ],
)
def test_nonsense_is_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_the_correlation_is_that_of_the_systems_of_each_seed(method: str) -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 4, 6)).round(1)  # seeds, systems; with ties
    names = list("abcdef")

    def read(system: str, metric: str) -> Mapping[int, float]:
        values = first if metric == "m" else second
        return {seed: values[seed, names.index(system)] for seed in range(4 if metric == "m" else 3)}

    (found,) = Correlation(names, "m", "n", "positive", method).comparisons(read)
    expected = [getattr(stats, f"{method}r")(first[seed], second[seed])[0] for seed in range(3)]
    assert list(found.values.values()) == pytest.approx(expected) and found.claimed.low == 0


def test_what_does_not_vary_is_not_correlated_and_the_sign_is_claimed() -> None:
    (found,) = Correlation(["low", "middle", "high"], "m", "m", "negative").comparisons(read)
    assert found.values == pytest.approx({0: 1.0, 1: 1.0, 2: 1.0}) and found.verdict == "fails"
    (still,) = Correlation(["low", "low", "low"], "m", "m", "negative").comparisons(read)
    assert set(still.values.values()) == {0.0}
