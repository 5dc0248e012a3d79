"""Quiet ends of output that nobody reads any more."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def close_pipe() -> None:
    """After a BrokenPipeError, as in `kdx-train --help | head`: send what is still to be written nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
