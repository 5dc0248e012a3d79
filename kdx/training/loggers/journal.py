"""Interface of kdx's loggers, in addition to Lightning's: pictures, tables, final metrics, alerts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger("kdx")
Row = Sequence[Any]
PATIENCE = 3  # failures in a row after which a logger is disabled, so that no run waits for a server at each step
# Lightning calls the last three.
GUARDED = ("begin", "resume", "picture", "table", "conclude", "alert", "close", "log_metrics", "log_hyperparams", "finalize")


@dataclass(frozen=True)
class RunInfo:
    """Information about a run at its start. `config` is plain data; `monitor` and `mode` define the best epoch."""

    folder: Path
    name: str
    job_type: str
    monitor: str
    mode: str
    config: Mapping[str, Any]
    group: str | None = None  # the sweep
    tags: Sequence[str] = ()
    resumed: Path | None = None  # the folder of the run that is resumed


@dataclass(frozen=True)
class FinalReport:
    """Results of a run: final metrics by flat name, those of the last weights on val, the best monitored value, selection."""

    metrics: Mapping[str, float]
    last: Mapping[str, float]
    best: float | None
    selection: Mapping[str, Any]
    teachers: Mapping[str, str] = field(default_factory=dict)  # name -> SHA-256 of the weights
    caveats: Mapping[str, str] = field(default_factory=dict)  # kind -> what limits the meaning of the numbers


class Journal:
    """Base class of loggers. Methods that a logger does not support do nothing; the run's folder contains everything.

    A call that raises costs only itself: a table, a picture or the numbers of one step, with a warning. After `PATIENCE`
    failures in a row, or if `begin` fails, the logger is disabled. This holds for the methods that a subclass defines.
    """

    broken = False
    failures = 0  # calls in a row that raised

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in GUARDED:
            if name in cls.__dict__:
                setattr(cls, name, _guarded(cls.__dict__[name]))

    def begin(self, about: RunInfo) -> None:
        """Called once when the run starts."""

    def resume(self, step: int) -> None:
        """Called before the first number if the run goes on from a checkpoint of this step."""

    def picture(self, name: str, path: Path) -> None:
        """Log an image file."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Log a table."""

    def conclude(self, about: RunInfo, conclusion: FinalReport) -> None:
        """Log the final metrics and the student's weights."""

    def alert(self, title: str, text: str) -> None:
        """Send an alert to the users of the logger."""

    def close(self, failed: bool) -> None:
        """Called once when the run ends."""


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method of a Journal such that an exception becomes a warning, and the run continues."""

    @functools.wraps(method)
    def guarded(self: Journal, *args: Any, **kwargs: Any) -> Any:
        if self.broken:
            return None
        try:
            result = method(self, *args, **kwargs)
        except Exception as error:  # from a server, a full disk or a library
            self.failures += 1
            self.broken = method.__name__ == "begin" or self.failures >= PATIENCE
            what = f"{method.__name__} {args[0]!r}" if args and isinstance(args[0], str) else method.__name__
            reason = f"{type(self).__name__} failed at {what} ({type(error).__name__}: {error})"
            lost = "and is disabled" if self.broken else "and continues without it"
            log.warning("%s %s; the run's folder contains all results", reason, lost)
            return None
        self.failures = 0
        return result

    return guarded
