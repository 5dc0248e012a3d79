"""Calibration of the probabilities of all classes: class-wise ECE and the decomposition of the Brier score."""

from __future__ import annotations

import torch
from torch import Tensor

from kdx.metrics.calibration import bin_index


def class_bins(log_probs: Tensor, label: Tensor, num_bins: int) -> Tensor:
    """Return sums [5,K,num_bins] float64 per class k and equal-width bin of its probability p, with y = 1 where the label is k.

    The sums are: number of examples, Σp, Σy, Σp², Σpy. Every example [B] counts once for each of the K classes.
    """
    probs = log_probs.exp().to(torch.float64)
    num_classes = probs.shape[-1]
    hit = torch.zeros_like(probs).scatter_(-1, label[:, None], 1.0)
    cell = bin_index(probs, num_bins) + num_bins * torch.arange(num_classes, device=probs.device)
    sums = torch.zeros(5, num_classes * num_bins, dtype=torch.float64, device=probs.device)
    for i, values in enumerate((torch.ones_like(probs), probs, hit, probs.square(), probs * hit)):
        sums[i].index_add_(0, cell.flatten(), values.flatten())
    return sums.view(5, num_classes, num_bins)


def classwise_calibration_error(sums: Tensor) -> Tensor:
    """Return the mean over classes of the binary ECE, Σ_bins n_b/N · |mean p - frequency| [], from `class_bins`.

    NaN without examples.

    Reference:
        Kull et al. 2019, arXiv:1910.12656, eq. 2.
    """
    count, prob, hit, *_ = sums
    return ((prob - hit).abs().sum(-1) / count.sum(-1)).mean()


def brier_parts(sums: Tensor) -> dict[str, Tensor]:
    """Return the parts of the Brier score, [] each, summed over classes: reliability - resolution + uncertainty + within.

    `reliability` is the squared distance of probability and frequency in each bin, `resolution` the squared distance of the
    frequency in each bin from that of the class, `uncertainty` the Brier score of the class frequencies; `within` is the
    variance of p minus twice its covariance with y in each bin, so that the sum is exact. NaN without examples.

    Reference:
        Stephenson et al. 2008, doi:10.1175/2007WAF2006116.1.
    """
    count, prob, hit, square, product = sums
    some = count.clamp(min=1)  # all sums of an empty bin are 0
    total = count.sum(-1)
    base = hit.sum(-1) / total
    within = (square - prob.square() / some) - 2 * (product - prob * hit / some)
    return {
        "reliability": (((prob - hit).square() / some).sum(-1) / total).sum(),
        "resolution": ((count * (hit / some - base[:, None]).square()).sum(-1) / total).sum(),
        "uncertainty": (base * (1 - base)).sum(),
        "within": (within.sum(-1) / total).sum(),
    }
