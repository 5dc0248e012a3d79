"""Libraries without what they only try to import, which saves a second at the start of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _instead(name: str, stand_in: ModuleType | None) -> Iterator[None]:
    """While this is open, `import name` finds `stand_in`, nothing if it is None; no change if the module is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stand_in  # type: ignore[assignment]  # None: Python raises ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules[name]


def import_timm() -> None:
    """Import timm without W&B, to which its own summaries can write; for a process that is kdx's own."""
    with _instead("wandb", None):
        import timm  # noqa: F401 - for those that import it next


def import_torchmetrics() -> None:
    """Import torchmetrics without scipy.signal, in which it mends a name for a metric of speech."""
    signal = ModuleType("scipy.signal")
    signal.hamming = None  # type: ignore[attr-defined]  # the name; so there is nothing to mend
    with _instead("scipy.signal", signal):
        import torchmetrics  # noqa: F401 - for those that import it next
