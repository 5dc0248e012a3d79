"""Rank of the current process."""

from __future__ import annotations

from pytorch_lightning.utilities import rank_zero_only


def rank() -> int:
    """Return the global rank of this process, 0 for a single process; available before the process group is initialized."""
    return int(getattr(rank_zero_only, "rank", 0))
