"""The rank of this process, from what the program that started it set; before Lightning is imported."""

from __future__ import annotations

import os

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in the order in which Lightning looks
SIZES = ("WORLD_SIZE", "SLURM_NTASKS", "JSM_NAMESPACE_SIZE")


def own_rank() -> int:
    """Return the rank of this process, 0 for a single process."""
    return _first(RANKS, 0)


def started_together() -> bool:
    """Return whether torchrun, srun or the like started this process as one of several."""
    return any(name in os.environ for name in RANKS) and _first(SIZES, 1) > 1


def processes() -> int:
    """Return how many processes torchrun, srun or the like started together; 1 if none did."""
    return _first(SIZES, 1) if started_together() else 1


def _first(names: tuple[str, ...], default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), default)
