"""What every logger of kdx can be asked for, beside Lightning's curves."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger("kdx")
Row = Sequence[Any]
Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class RunInfo:
    """What a logger may know of a run when it starts. `config` is plain data; `monitor` and `mode` say what is best."""

    folder: Path
    name: str
    job_type: str
    monitor: str
    mode: str
    config: Mapping[str, Any]
    group: str | None = None  # the sweep
    tags: Sequence[str] = ()
    resumed: Path | None = None  # the folder of the run that this one goes on with


@dataclass(frozen=True)
class FinalReport:
    """What came out: final metrics by flat name, those of the last weights on val, the best monitored value, the selection."""

    metrics: Mapping[str, float]
    last: Mapping[str, float]
    best: float | None
    selection: Mapping[str, Any]
    teachers: Mapping[str, str] = field(default_factory=dict)  # name -> SHA-256 of the weights


class Journal:
    """A logger that can also show pictures and tables. What one cannot show it leaves out: the run's folder has it all."""

    broken = False

    def begin(self, about: RunInfo) -> None:
        """The run starts."""

    def picture(self, name: str, path: Path) -> None:
        """Show an image file."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Show a table."""

    def conclude(self, about: RunInfo, conclusion: FinalReport) -> None:
        """The run's final numbers, and its student."""

    def alert(self, title: str, text: str) -> None:
        """Tell people at once."""

    def close(self, failed: bool) -> None:
        """The run is over."""


def careful(method: Method) -> Method:
    """A logger that fails is left out from then on, with one warning: no run depends on it."""

    @functools.wraps(method)
    def guarded(self: Journal, *args: Any, **kwargs: Any) -> Any:
        if self.broken:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # whatever a server, a full disk or a library thinks of
            self.broken = True
            name = type(self).__name__
            log.warning(
                "%s fails (%s: %s) and is left out; the run's own folder has everything", name, type(error).__name__, error
            )
            return None

    return guarded  # type: ignore[return-value]  # the same signature
