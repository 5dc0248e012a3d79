"""What n runs say about a claim: differences paired by seed, intervals that are right for few seeds, and one verdict rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # one number per seed
Verdict = Literal["holds", "fails", "undecided", "not run"]
CONFIDENCE = 0.95
K = TypeVar("K")


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class Region:
    """Where a claim says that a mean lies: strictly between `low` and `high`."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"no number lies between {self.low} and {self.high}: give a low end below the high one")


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds. `interval` is Student's, which verdicts use; `bootstrap` is there to compare it with."""

    n: int
    mean: float
    std: float  # of one seed, with n - 1
    interval: Interval
    bootstrap: Interval


def paired(first: Mapping[K, float], second: Mapping[K, float]) -> dict[K, float]:
    """`first` minus `second` for every key (a seed) that both have, in the order of `first`."""
    return {key: value - second[key] for key, value in first.items() if key in second}


def estimate(values: Sequence[float] | Values) -> Estimate:
    """Mean, standard deviation and both intervals. ValueError for fewer than two values, or for one that is not finite."""
    numbers = _numbers(values)
    spread = float(numbers.std(ddof=1))
    return Estimate(len(numbers), float(numbers.mean()), spread, student_interval(numbers), bootstrap_interval(numbers))


def student_interval(values: Sequence[float] | Values, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean.

    Exact for normal values at any n. Paired differences of two systems that are alike are symmetric about zero, whatever the
    law of one run; for symmetric values with heavier tails than the normal it covers more than it says, not less.
    """
    numbers = _numbers(values)
    half = _student_quantile((1 + confidence) / 2, len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers))
    return Interval(float(numbers.mean() - half), float(numbers.mean() + half))


def bootstrap_interval(
    values: Sequence[float] | Values, confidence: float = CONFIDENCE, *, widen: bool = True, resamples: int = 20_000
) -> Interval:
    """Percentile bootstrap interval of the mean, always the same for the same values.

    The plain one (`widen=False`) is too narrow for few values: it covers about 85 % instead of 95 % at n = 5, for resampling
    forgets n/(n-1) of the variance and the tails of Student's law. `widen` takes the percentiles further out to make up for
    both (Hesterberg 2015, arXiv:1411.5279, "expanded percentile"). No resampled mean leaves the range of the values,
    which at n = 5 covers a median only with 94 %, so even then it falls short of 95 %.
    """
    numbers = _numbers(values)
    n = len(numbers)
    tail = (1 - confidence) / 2
    if widen:
        tail = _normal_cdf(-math.sqrt(n / (n - 1)) * _student_quantile(1 - tail, n - 1))
    means = np.sort(numbers[np.random.default_rng(0).integers(n, size=(resamples, n))].mean(1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def verdict(interval: Interval, claimed: Region) -> Verdict:
    """What an interval says: "holds" if it lies in the claimed region, "fails" if none of it does, else "undecided"."""
    if claimed.low < interval.low and interval.high < claimed.high:
        return "holds"
    if interval.high <= claimed.low or interval.low >= claimed.high:
        return "fails"
    return "undecided"


def joint(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim made of parts: "holds" if all hold, "fails" if one fails, else "undecided"; "not run" without all of them."""
    found = set(verdicts)
    if not found or "not run" in found:
        return "not run"
    if found == {"holds"}:
        return "holds"
    return "fails" if "fails" in found else "undecided"


def margin(found: Estimate, claimed: Region) -> tuple[float, float, float]:
    """How far the claim is kept, in standard deviations of one seed: (interval's low end, mean, high end).

    The distance to the nearest end of the claimed region, positive inside it. So all claims read alike: the interval lies
    right of zero where a claim holds, and left where it fails.
    """

    def inside(value: float) -> float:
        return min(value - claimed.low, claimed.high - value) / (found.std or 1e-12)

    low, high = found.interval.low, found.interval.high
    middle = (claimed.low + claimed.high) / 2
    deepest = min(max(low, middle), high) if math.isfinite(middle) else found.mean
    return min(inside(low), inside(high)), inside(found.mean), max(inside(low), inside(high), inside(deepest))


def _numbers(values: Sequence[float] | Values) -> Values:
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or len(numbers) < 2:
        raise ValueError(f"{numbers.size} value says nothing of the spread: give at least two seeds")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{numbers.tolist()} are not all finite numbers: look for the run that diverged")
    return numbers


def _student_quantile(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def number(value: float, spread: float | None = None) -> str:
    """Three significant digits, with a true minus sign; with its spread to as many decimals, if that is given."""
    reference = abs(value) if spread is None else max(abs(value), spread)
    decimals = 0 if reference >= 100 else 4 if reference < 1e-4 else int(np.clip(2 - np.floor(np.log10(reference)), 0, 4))
    text = f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    return text if spread is None else f"{text} ± {spread:.{decimals}f}"
