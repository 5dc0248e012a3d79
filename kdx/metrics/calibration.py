"""Expected calibration error from sums over equal-width bins of confidence: fixed memory, exact under any sharding."""

from __future__ import annotations

import torch
from torch import Tensor


def bins(log_probs: Tensor, label: Tensor, num_bins: int) -> Tensor:
    """Sums [3,num_bins] float64 per bin of the confidence: how many examples, their confidence, how many are right.

    Bin i holds confidences in (i/n, (i+1)/n], as in Guo et al. 2017 (arXiv:1706.04599).
    """
    confidence, predicted = log_probs.exp().to(torch.float64).max(-1)
    index = (torch.ceil(confidence * num_bins).long() - 1).clamp(0, num_bins - 1)
    values = torch.stack([torch.ones_like(confidence), confidence, (predicted == label).to(torch.float64)])
    sums = torch.zeros(3, num_bins, dtype=torch.float64, device=log_probs.device)
    return sums.index_add_(1, index, values)


def expected_calibration_error(sums: Tensor) -> Tensor:
    """Σ_bins n_b/N · |mean confidence - accuracy|, [], from the sums of `bins`; NaN of nothing."""
    count, confidence, correct = sums
    return (confidence - correct).abs().sum() / count.sum()
