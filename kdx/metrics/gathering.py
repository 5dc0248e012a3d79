"""Gather or add tensors of all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def everywhere(parts: Sequence[Tensor]) -> Tensor:
    """Return the parts [B,...] of all ranks as one tensor, in the order of the ranks, which may differ in rows."""
    whole = torch.cat(list(parts))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from torchmetrics.utilities.distributed import gather_all_tensors  # takes seconds, in which mistakes are told

        return torch.cat(gather_all_tensors(whole))
    return whole


def summed(values: Tensor, device: torch.device) -> Tensor:
    """Return the sum over all ranks, the same to the last bit on each, on the CPU; `device` is that of a rank."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return everywhere([values.to(device)[None]]).sum(0).cpu()
    return values.cpu()


def of_first_rank(values: Tensor, device: torch.device) -> Tensor:
    """Return the first rank's values on all ranks, on the CPU; `device` is that of a rank."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return everywhere([values.to(device)[None]])[0].cpu()
    return values.cpu()
