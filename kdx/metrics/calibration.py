"""Calibration errors from sums over bins of confidence, which have a fixed size and are exact on any number of ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc


def bin_index(confidence: Tensor, num_bins: int) -> Tensor:
    """Return the equal-width bin of each confidence in [0,1], int64: bin i holds (i/n, (i+1)/n], and the first one also 0."""
    return (torch.ceil(confidence * num_bins).long() - 1).clamp(0, num_bins - 1)


def bins(confidence: Tensor, correct: Tensor, num_bins: int) -> Tensor:
    """Return sums [3,num_bins] float64 per bin, from confidence and correct [B]: examples, their confidence, right ones.

    Bin i holds confidences in (i/n, (i+1)/n].

    Reference:
        Guo et al. 2017, arXiv:1706.04599.
    """
    confidence = confidence.to(torch.float64)
    values = torch.stack([torch.ones_like(confidence), confidence, correct.to(torch.float64)])
    sums = torch.zeros(3, num_bins, dtype=torch.float64, device=confidence.device)
    return sums.index_add_(1, bin_index(confidence, num_bins), values)


def equal_mass_bins(confidence: Tensor, correct: Tensor, num_bins: int) -> Tensor:
    """Return sums [3,num_bins] like `bins`, over bins of N/num_bins examples each, from confidence and correct [N].

    Examples with equal confidence are spread evenly over the mass that they occupy, so their order does not matter, and a bin
    may hold part of an example: cumulative sums are piecewise linear in the mass, and a bin is their increase over its range.
    """
    zero = confidence.new_zeros(1, dtype=torch.float64)
    if not len(confidence):
        return zero.expand(3, num_bins)
    values, group, ties = confidence.to(torch.float64).unique(return_inverse=True, return_counts=True)
    right = torch.zeros_like(values).index_add_(0, group, correct.to(torch.float64))
    gains = torch.stack([ties.to(torch.float64), ties * values, right])
    ends = gains.cumsum(1)
    edges = torch.arange(1, num_bins, device=values.device, dtype=torch.float64) * (len(confidence) / num_bins)
    at = torch.searchsorted(ends[0], edges)
    missing = (ends[0, at] - edges) / gains[0, at]  # the share of the tie group that lies beyond the edge
    inner = ends[:, at] - missing * gains[:, at]
    return torch.cat([zero.expand(3, 1), inner, ends[:, -1:]], 1).diff(dim=1)


def expected_calibration_error(sums: Tensor) -> Tensor:
    """Return Σ_bins n_b/N · |mean confidence - accuracy| [] from sums of `bins` or `equal_mass_bins`; NaN without examples."""
    count, confidence, correct = sums
    return (confidence - correct).abs().sum() / count.sum()


def error_by_chance(sums: Tensor) -> Tensor:
    """Return the calibration error expected by chance [] of a perfectly calibrated network with the confidences in `bins`.

    If each of n predictions with mean confidence c were right with probability c, a bin's sum of errors would be about normal
    with variance n c (1-c), and its expected magnitude √(2 n c (1-c) / π). On few images, an ECE near this value says nothing.
    NaN without examples.
    """
    count, confidence, _ = sums
    mean = confidence / count.clamp(min=1)
    return (2 / torch.pi * count * mean * (1 - mean)).clamp(min=0).sqrt().sum() / count.sum()


def maximum_calibration_error(sums: Tensor) -> Tensor:
    """Return the largest |mean confidence - accuracy| of all bins that are not empty, []; NaN without examples.

    Reference:
        Guo et al. 2017, arXiv:1706.04599, eq. 5.
    """
    count, confidence, correct = sums
    gaps = (confidence - correct).abs() / count.clamp(min=1)  # those of empty bins are 0
    return torch.where(count.sum() > 0, gaps.max(), torch.nan)


def rms_calibration_error(sums: Tensor) -> Tensor:
    """Return √(Σ_bins n_b/N · (mean confidence - accuracy)²) []; NaN without examples.

    Reference:
        Hendrycks et al. 2019, arXiv:1812.04606.
    """
    count, confidence, correct = sums
    return ((confidence - correct).square() / count.clamp(min=1)).sum().div(count.sum()).sqrt()


def auroc(confidence: Tensor, correct: Tensor) -> Tensor:
    """Return the area under the ROC curve of confidence [N] as a predictor of correctness [], exact, ties count half.

    NaN if all examples are right, or all are wrong.
    """
    right = correct.to(torch.int64)
    if not 0 < right.sum() < len(right):
        return confidence.new_tensor(torch.nan)
    return binary_auroc(confidence, right, thresholds=None)
