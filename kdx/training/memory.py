"""Memory of the process: what a step frees, the next one takes."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
KEPT = 1 << 30
LARGE = 32 << 20  # what is larger takes and returns memory of its own: holes of that size would be too much


def keep_freed_memory() -> None:
    """Have malloc keep up to a GiB of what is freed, instead of giving it back to the system.

    Else a training step on a CPU asks the system for its activations each time anew, and the system clears each page. Nothing
    happens where malloc is not glibc's. The results are the same to the last bit.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return
    for parameter, value in ((M_TRIM_THRESHOLD, KEPT), (M_MMAP_THRESHOLD, LARGE), (M_TOP_PAD, 2 * LARGE)):
        mallopt(parameter, value)
