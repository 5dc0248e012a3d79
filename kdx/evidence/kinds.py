"""The kinds of tests in a claim. Each test names the systems and the metric, and yields comparisons with a claimed region."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from kdx.compare.statistics import Region, paired
from kdx.evidence.findings import ClaimComparison
from kdx.ranges import Finite, NonNegative, Positive, validated

Read = Callable[[str, str], Mapping[int, float]]  # (system, metric) -> value by seed
Names = str | list[str]


class Test(ABC):
    """Part of a claim.

    `metric` is a name in metrics.json, or a column of metrics.csv at an epoch: NAME@end or NAME@EPOCH.
    """

    __test__ = False  # pytest would collect the class because of its name
    metric: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the test reads."""
        return (self.metric,)

    @property
    @abstractmethod
    def systems(self) -> list[str]:
        """The systems whose runs the test reads."""

    @abstractmethod
    def comparisons(self, read: Read) -> Iterator[ClaimComparison]:
        """Yield the comparisons, which all must hold. `read` returns a metric of a system by seed."""

    def difference(self, read: Read, first: str, second: str, claimed: Region) -> ClaimComparison:
        """Return the comparison of the metric of `first` minus that of `second`, paired by seed."""
        values = paired(read(first, self.metric), read(second, self.metric))
        return ClaimComparison(f"{first} \N{MINUS SIGN} {second}", self.metric, values, claimed)


@validated
class Difference(Test):
    """The metric of each of `systems` is lower (or higher) than that of each of `than`.

    With a `margin`, the test is for non-inferiority: the metric may be worse by less than the margin.
    """

    def __init__(
        self, systems: Names, metric: str, direction: Literal["lower", "higher"], than: Names, margin: NonNegative = 0.0
    ) -> None:
        self.first, self.second, self.metric = _list(systems), _list(than), metric
        self.claimed = Region(high=margin) if direction == "lower" else Region(low=0.0 - margin)

    @property
    def systems(self) -> list[str]:
        return [*self.first, *self.second]

    def comparisons(self, read: Read) -> Iterator[ClaimComparison]:
        for first, second in itertools.product(self.first, self.second):
            yield self.difference(read, first, second, self.claimed)


@validated
class Order(Test):
    """The metric rises (or falls) from each of `systems` to the next."""

    def __init__(self, systems: list[str], metric: str, direction: Literal["rises", "falls"]) -> None:
        if len(systems) < 2:
            raise ValueError(f"systems={systems}: give at least two systems")
        self.chain, self.metric = list(systems), metric
        self.claimed = Region(low=0.0) if direction == "rises" else Region(high=0.0)

    @property
    def systems(self) -> list[str]:
        return self.chain

    def comparisons(self, read: Read) -> Iterator[ClaimComparison]:
        for first, second in itertools.pairwise(self.chain):
            yield self.difference(read, second, first, self.claimed)


@validated
class Crossover(Test):
    """The first system is worse than the others after a short training, and better after a long one.

    `early` and `late` list the same systems in the same order after the two budgets. `better` is the better direction of the
    metric.
    """

    def __init__(self, early: list[str], late: list[str], metric: str, better: Literal["lower", "higher"]) -> None:
        if len(early) != len(late) or len(early) < 2:
            raise ValueError(f"early={early}, late={late}: give the same number of systems, at least two, in both lists")
        self.early, self.late, self.metric, self.better = list(early), list(late), metric, better

    @property
    def systems(self) -> list[str]:
        return [*self.early, *self.late]

    def comparisons(self, read: Read) -> Iterator[ClaimComparison]:
        below, above = Region(high=0.0), Region(low=0.0)
        worse, good = (above, below) if self.better == "lower" else (below, above)
        for (first, *others), claimed in ((self.early, worse), (self.late, good)):
            for other in others:
                yield self.difference(read, first, other, claimed)


@validated
class Equivalence(Test):
    """The metric of each further system differs from that of the first by less than `margin`, in either direction."""

    def __init__(self, systems: list[str], metric: str, margin: Positive) -> None:
        if len(systems) < 2:
            raise ValueError(f"systems={systems}: give at least two systems")
        self.first, self.metric, self.margin = list(systems), metric, margin

    @property
    def systems(self) -> list[str]:
        return self.first

    def comparisons(self, read: Read) -> Iterator[ClaimComparison]:
        first, *others = self.first
        for other in others:
            yield self.difference(read, other, first, Region(-self.margin, self.margin))


@validated
class Level(Test):
    """The metric of each of `systems` is above `above` and below `below`, if given."""

    def __init__(self, systems: Names, metric: str, above: Finite | None = None, below: Finite | None = None) -> None:
        if above is None and below is None:
            raise ValueError("A level requires a bound: give above=VALUE, below=VALUE, or both")
        self.named, self.metric = _list(systems), metric
        self.claimed = Region(*(end if bound is None else bound for bound, end in ((above, -INFINITE), (below, INFINITE))))

    @property
    def systems(self) -> list[str]:
        return self.named

    def comparisons(self, read: Read) -> Iterator[ClaimComparison]:
        for system in self.named:
            yield ClaimComparison(system, self.metric, read(system, self.metric), self.claimed)


@validated
class Correlation(Test):
    """Across the systems, `metric` and `to` are correlated, with a negative or positive coefficient.

    The coefficient of a seed is that of its systems; the claim is about its mean over seeds.
    """

    def __init__(
        self,
        systems: list[str],
        metric: str,
        to: str,
        sign: Literal["negative", "positive"],
        method: Literal["spearman", "pearson"] = "spearman",
    ) -> None:
        if len(systems) < 3:
            raise ValueError(f"systems={systems}: give at least three systems")
        self.ladder, self.metric, self.to, self.method = list(systems), metric, to, method
        self.claimed = Region(high=0.0) if sign == "negative" else Region(low=0.0)

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.metric, self.to

    @property
    def systems(self) -> list[str]:
        return self.ladder

    def comparisons(self, read: Read) -> Iterator[ClaimComparison]:
        of = {metric: [read(system, metric) for system in self.ladder] for metric in self.metrics}
        seeds = [seed for seed in of[self.metric][0] if all(seed in values for part in of.values() for values in part)]
        coefficients = {
            seed: COEFFICIENTS[self.method](*([values[seed] for values in of[metric]] for metric in self.metrics))
            for seed in seeds
        }
        what = f"{len(self.ladder)} systems, {self.method.capitalize()}'s correlation with {self.to}"
        yield ClaimComparison(what, self.metric, coefficients, self.claimed)


def _pearson(first: list[float], second: list[float]) -> float:
    """Return the correlation; 0 if one does not vary, because then it says nothing about the other."""
    constant = len(set(first)) == 1 or len(set(second)) == 1
    return 0.0 if constant else float(np.corrcoef(first, second)[0, 1])


def _spearman(first: list[float], second: list[float]) -> float:
    return _pearson(rankdata(first).tolist(), rankdata(second).tolist())


COEFFICIENTS = {"pearson": _pearson, "spearman": _spearman}
INFINITE = float("inf")


def _list(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
