"""Exit without an error when the reader of a pipe has closed it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def close_pipe() -> None:
    """Discard the remaining output after a BrokenPipeError, as in `kdx-train --help | head`."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
