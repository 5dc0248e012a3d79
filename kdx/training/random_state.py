"""The random state of the process: torch's, NumPy's and Python's, as plain data and tensors."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


def seed_everything(seed: int) -> None:
    """Seed torch, NumPy and Python, for initial weights and dropout. Views and order use counter-based random numbers."""
    pl.seed_everything(seed, workers=True, verbose=False)


def random_state() -> dict[str, Any]:
    """Return the state of all random generators, such that it can be put in a checkpoint."""
    numpy: Any = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(numpy[1]).astype(np.int64)), *numpy[2:]],
        "python": random.getstate(),
    }


def put_random_state(state: Mapping[str, Any]) -> None:
    """Go on with the random numbers that followed when `random_state` was called."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
