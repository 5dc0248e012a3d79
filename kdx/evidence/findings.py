"""The finding on a claim: the comparisons that test it, their estimates, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kdx.compare.statistics import Estimate, Region, Verdict, estimate, joint, verdict


@dataclass(frozen=True)
class ClaimComparison:
    """One quantity with a value per seed, and the region in which the claim places its mean."""

    what: str  # e.g. "kd_10 - labels"
    metric: str
    values: Mapping[int, float]  # by seed; differences are paired by seed
    claimed: Region

    @cached_property
    def estimate(self) -> Estimate:
        """Mean, standard deviation and intervals over the seeds; ValueError for fewer than two seeds."""
        return estimate(list(self.values.values()))

    @property
    def verdict(self) -> Verdict:
        """The verdict on this comparison."""
        return verdict(self.estimate.interval, self.claimed)

    @property
    def claim(self) -> str:
        """The claimed region as text: "> 0", "< 0.01", "in (-1, 1)"."""
        low, high = self.claimed.low, self.claimed.high
        if high == float("inf"):
            return f"> {low:g}"
        return f"< {high:g}" if low == float("-inf") else f"in ({low:g}, {high:g})"


@dataclass(frozen=True)
class Finding:
    """A claim and its comparisons."""

    family: str
    name: str
    paper: str
    sentence: str
    comparisons: Sequence[ClaimComparison] = ()
    missing: str = ""  # the reason why the claim was not run; "" if it was
    note: str = ""  # an explanation of the result, written afterwards

    @property
    def verdict(self) -> Verdict:
        """The joint verdict on all comparisons."""
        return "not run" if self.missing else joint(comparison.verdict for comparison in self.comparisons)
