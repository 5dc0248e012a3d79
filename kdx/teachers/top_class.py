"""Calibration of the likeliest class: its confidence is mapped, the other classes keep their proportions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from kdx.metrics.gathering import everywhere
from kdx.ranges import Count, validated
from kdx.teachers.calibration import NO_EXAMPLES, Batches, Calibration, Calibrator, listed
from kdx.teachers.calibration_maps import IDENTITY, TopClassMap

FEWEST_WRONG = 10  # val images
FURTHEST = 1e4  # log odds; so that they stay finite

Array = NDArray[np.float64]
Knots = tuple[tuple[float, ...], tuple[float, ...]]


class TopClassCalibrator(Calibrator):
    """Fits the confidence of the likeliest class to the share of right predictions.

    With `per_class`, a likeliest class that is predicted for `fewest` images or more has a map of its own (top-label
    calibration), and the others share one; else all share one (confidence calibration). The prediction never changes.

    References: Zadrozny and Elkan, KDD 2002; Gupta and Ramdas, arXiv:2107.08353.
    """

    text: str  # of the map

    def __init__(self, fewest: int, per_class: bool) -> None:
        self.fewest, self.per_class = fewest, per_class

    @abstractmethod
    def knots(self, log_odds: Array, right: Array) -> Knots:
        """Return the knots of TopClassMap for predictions with these log odds [N], rising, that are right (1) or not (0)."""

    def calibrate(self, logits: Batches, label: Batches, certain: bool = False) -> Calibration:
        """Return the map, or the identity if logits [N,K] with labels [N] are less than `fewest`, or under ten are wrong."""
        odds, predicted, right = _predictions(logits, label)
        total, wrong = len(right), int(len(right) - right.sum())
        if not total:
            raise ValueError(NO_EXAMPLES)
        if not certain and total < self.fewest:
            return Calibration(IDENTITY, f"{total} val images are too few, expected {self.fewest} or more")
        if not certain and wrong < FEWEST_WRONG:
            return Calibration(IDENTITY, f"{wrong} of {total} val images are wrong, expected {FEWEST_WRONG} or more")
        own = {}
        for number in np.unique(predicted) if self.per_class else ():
            mine = predicted == number
            if mine.sum() >= self.fewest:
                own[int(number)] = self.knots(odds[mine], right[mine])
        return Calibration(TopClassMap(self.knots(odds, right), own, self.text))


@validated
class HistogramBinning(TopClassCalibrator):
    """Histogram binning: `num_bins` of as many images each, whose share of right predictions is the confidence.

    There are fewer bins where they would have less than `images_per_bin`. One right and one wrong prediction are added to each
    bin, so that no confidence is 0 or 1. Confidences of two bins may be in another order than before.
    """

    name, text = "histogram", "histogram binning"

    def __init__(self, num_bins: Count = 15, images_per_bin: Annotated[int, Ge(2)] = 50, per_class: bool = True) -> None:
        super().__init__(2 * images_per_bin, per_class)
        self.num_bins, self.images_per_bin = num_bins, images_per_bin

    def knots(self, log_odds: Array, right: Array) -> Knots:
        count = max(1, min(self.num_bins, len(log_odds) // self.images_per_bin))
        edges = log_odds[np.arange(1, count) * len(log_odds) // count]  # the first of each further bin
        edges = np.unique(edges[edges > log_odds[0]])
        parts = np.split(right, np.searchsorted(log_odds, edges))
        values = _log_odds(np.array([(part.sum() + 1) / (len(part) + 2) for part in parts])).tolist()
        if not len(edges):
            return (0.0,), (values[0],)
        return tuple(np.repeat(edges, 2).tolist()), (values[0], *np.repeat(values[1:-1], 2).tolist(), values[-1])


@validated
class IsotonicRegression(TopClassCalibrator):
    """Isotonic regression: the rising map of confidence that is closest to right (1) and wrong (0) predictions.

    The order of confidences stays, except that different ones may become equal. One right prediction is added at the lowest
    confidence, and one wrong one at the highest, so that no confidence is 0 or 1.
    """

    name, text = "isotonic", "isotonic regression"

    def __init__(self, fewest: Annotated[int, Ge(2)] = 100, per_class: bool = True) -> None:
        super().__init__(fewest, per_class)

    def knots(self, log_odds: Array, right: Array) -> Knots:
        at, place, weight = np.unique(np.r_[log_odds[0], log_odds, log_odds[-1]], return_inverse=True, return_counts=True)
        mean = np.bincount(place, np.r_[1.0, right, 0.0]) / weight
        fitted = isotonic_regression(mean, weights=weight)
        starts = fitted.blocks[:-1]
        ends = fitted.blocks[1:] - 1
        values = _log_odds(fitted.x[starts])
        return tuple(np.stack([at[starts], at[ends]], 1).ravel().tolist()), tuple(np.repeat(values, 2).tolist())


def _predictions(logits: Batches, label: Batches) -> tuple[Array, NDArray[np.int64], Array]:
    """Return log odds of the likeliest class, rising, that class, and whether it is right [N], of all ranks."""
    odds, predicted, right = [], [], []
    for batch, own in zip(listed(logits), listed(label), strict=True):
        top, index = batch.detach().float().max(-1)
        rest = batch.detach().float().scatter(-1, index[:, None], -torch.inf).logsumexp(-1)
        odds.append((top - rest).clamp(-FURTHEST, FURTHEST))
        predicted.append(index)
        right.append(index == own)
    whole_odds, whole_predicted, whole_right = (everywhere(part).cpu().numpy() for part in (odds, predicted, right))
    order = np.lexsort((whole_right, whole_predicted, whole_odds))  # that of batches and ranks does not matter
    return whole_odds[order].astype(np.float64), whole_predicted[order], whole_right[order].astype(np.float64)


def _log_odds(confidence: Array) -> Array:
    return np.log(confidence) - np.log1p(-confidence)
