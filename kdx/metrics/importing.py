"""torchmetrics without scipy.signal."""

from types import ModuleType

from kdx.run.importing import standing_in


def import_torchmetrics() -> None:
    """Import torchmetrics without scipy.signal, in which it mends a name for a metric of speech."""
    signal = ModuleType("scipy.signal")
    signal.hamming = None  # type: ignore[attr-defined]  # the name; so there is nothing to mend
    with standing_in("scipy.signal", signal):
        import torchmetrics  # noqa: F401 - for those that import it next
