"""Random numbers as pure functions of (seed, stream, epoch, index).

The functions hold no state, so a number does not depend on worker count, batch size, order, resume or rank, and it can be
drawn again later, for example for a cached teacher or a figure.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele, Lea, Flood 2014): a bijection that spreads each bit over all 64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(seed: int, stream: str, epoch: int, index: ArrayLike, count: int) -> NDArray[np.float64]:
    """Return uniform numbers in [0,1), shape [B,count]; row b depends on (seed, stream, epoch, index[b]) only."""
    with np.errstate(over="ignore"):
        key = np.zeros(1, np.uint64)
        for part in (seed, zlib.crc32(stream.encode()), epoch):
            key = _mix(key * _GOLDEN + np.uint64(part & 0xFFFFFFFFFFFFFFFF) + _GOLDEN)
        example = _mix(np.asarray(index).astype(np.uint64) * _GOLDEN + key)
        bits = _mix(example[:, None] + np.arange(1, count + 1, dtype=np.uint64)[None] * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, stream: str, epoch: int, n: int) -> NDArray[np.int64]:
    """Return a random permutation of 0..n-1, shape [n]."""
    return np.argsort(uniform(seed, stream, epoch, np.arange(n), 1)[:, 0], kind="stable")
