"""Imports without what a library only tries to import; this saves a second at the start of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def standing_in(name: str, stand_in: ModuleType | None) -> Iterator[None]:
    """While this is open, `import name` finds `stand_in`, nothing if it is None; no change if the module is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stand_in  # type: ignore[assignment]  # None: Python raises ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules[name]
