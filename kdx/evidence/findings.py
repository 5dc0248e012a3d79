"""What was found: a claim, the comparisons that test it, their estimates and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from kdx.compare.statistics import Estimate, Region, Verdict, estimate, joint, verdict


@dataclass(frozen=True)
class ClaimComparison:
    """One quantity with a value per seed, and where its mean has to lie.

    `values` of a difference are already paired by seed.
    """

    what: str  # e.g. "kd_10 - labels"
    metric: str
    values: Mapping[int, float]
    claimed: Region

    @cached_property
    def estimate(self) -> Estimate:
        """Mean, spread and intervals over the seeds. ValueError if they cannot be had."""
        return estimate(list(self.values.values()))

    @property
    def verdict(self) -> Verdict:
        """Whether the interval lies in the claimed region."""
        return verdict(self.estimate.interval, self.claimed)

    @property
    def claim(self) -> str:
        """The claimed region in a few characters: "> 0", "< 0.01", "in (-1, 1)"."""
        low, high = self.claimed.low, self.claimed.high
        if high == float("inf"):
            return f"> {low:g}"
        return f"< {high:g}" if low == float("-inf") else f"in ({low:g}, {high:g})"


@dataclass(frozen=True)
class Finding:
    """A claim in words and what the runs say of it. `missing` says why it was not run; it is empty where it was."""

    family: str
    name: str
    paper: str
    sentence: str
    comparisons: Sequence[ClaimComparison] = ()
    missing: str = ""
    note: str = ""  # a person's explanation, after the fact

    @property
    def verdict(self) -> Verdict:
        """Of all comparisons together."""
        return "not run" if self.missing else joint(comparison.verdict for comparison in self.comparisons)
