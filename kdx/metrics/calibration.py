"""How far confidence is from accuracy: from sums over bins of confidence, fixed in memory and exact under any sharding."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc


def bin_index(confidence: Tensor, num_bins: int) -> Tensor:
    """The equal-width bin of each confidence in [0,1], int64: bin i holds (i/n, (i+1)/n], and the first one 0 too."""
    return (torch.ceil(confidence * num_bins).long() - 1).clamp(0, num_bins - 1)


def bins(log_probs: Tensor, label: Tensor, num_bins: int) -> Tensor:
    """Sums [3,num_bins] float64 per bin of the confidence: how many examples, their confidence, how many are right.

    Bin i holds confidences in (i/n, (i+1)/n], as in Guo et al. 2017 (arXiv:1706.04599).
    """
    confidence, predicted = log_probs.exp().to(torch.float64).max(-1)
    index = bin_index(confidence, num_bins)
    values = torch.stack([torch.ones_like(confidence), confidence, (predicted == label).to(torch.float64)])
    sums = torch.zeros(3, num_bins, dtype=torch.float64, device=log_probs.device)
    return sums.index_add_(1, index, values)


def equal_mass_bins(confidence: Tensor, correct: Tensor, num_bins: int) -> Tensor:
    """Sums [3,num_bins] like those of `bins`, over bins that hold N/num_bins examples each, from confidence and correct [N].

    Examples with the same confidence are spread evenly over the mass that they take up, so their order does not matter, and a
    bin may hold part of an example: cumulative sums are piecewise linear in the mass, and a bin is what they gain in it.
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
    """Σ_bins n_b/N · |mean confidence - accuracy|, [], from the sums of `bins` or `equal_mass_bins`; NaN of nothing."""
    count, confidence, correct = sums
    return (confidence - correct).abs().sum() / count.sum()


def maximum_calibration_error(sums: Tensor) -> Tensor:
    """The largest |mean confidence - accuracy| of a bin that is not empty, [] (Guo et al. 2017, eq. 5); NaN of nothing."""
    count, confidence, correct = sums
    gaps = (confidence - correct).abs() / count.clamp(min=1)  # those of empty bins are 0
    return torch.where(count.sum() > 0, gaps.max(), torch.nan)


def rms_calibration_error(sums: Tensor) -> Tensor:
    """√(Σ_bins n_b/N · (mean confidence - accuracy)²), [] (Hendrycks et al., arXiv:1812.04606); NaN of nothing."""
    count, confidence, correct = sums
    return ((confidence - correct).square() / count.clamp(min=1)).sum().div(count.sum()).sqrt()


def auroc(confidence: Tensor, correct: Tensor) -> Tensor:
    """How often an example that is right has a higher confidence [N] than one that is wrong, ties half; [], exact.

    NaN where all are right or all are wrong.
    """
    right = correct.to(torch.int64)
    if not 0 < right.sum() < len(right):
        return confidence.new_tensor(torch.nan)
    return binary_auroc(confidence, right, thresholds=None)
