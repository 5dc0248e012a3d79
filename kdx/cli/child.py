"""A run in a process of its own, as the command that a person would type: what happens to it happens to no other run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType

from kdx.cli import app
from kdx.run import job

CONSOLE = "console.log"
FORWARDED = (signal.SIGINT, signal.SIGTERM)


class KilledError(ValueError):
    """The process of a run was ended by a signal that it could not handle."""


class StoppedError(BaseException):
    """A signal was received by this process, and passed on to its children."""

    def __init__(self, number: int) -> None:
        self.number = number


class Child:
    """The process of a run in its folder. Its console is `console.log` there, or that of this process."""

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        inherits: Sequence[int] = (),
        on_terminal: bool = False,
    ) -> None:
        self.folder, self.began = folder, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        own = {name: value for name, value in os.environ.items() if name != "KDX_SWEEP_DIR"}  # it is a single run
        with nullcontext() if on_terminal else (folder / CONSOLE).open("ab") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kdx.cli.train", *words, f"hydra.run.dir={quoted(folder)}"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**own, **(environment or {})},
                pass_fds=list(inherits),
                start_new_session=True,  # a Ctrl-C reaches it once: from this process, not also from the terminal
            )

    def ended(self) -> bool:
        """Return whether the process has ended. One that was killed has failed, and the folder's record says so."""
        status = self.process.poll()
        if status is not None and status < 0 and -status not in FORWARDED:
            why = "perhaps the machine had no memory left" if -status == signal.SIGKILL else f"see {CONSOLE} in its folder"
            job.fail(self.folder, KilledError(f"its process was ended by {signal.Signals(-status).name}: {why}"))
        return status is not None

    @property
    def seconds(self) -> float:
        """The time since it was started."""
        return time.monotonic() - self.began


def quoted(path: Path) -> str:
    """Return a path as a value of Hydra's grammar."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def forwarding(children: Sequence[Child]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the children, which then stop with a checkpoint; wait for them, and act on the signal.

    The list of children may change.

    Raises:
        KeyboardInterrupt: After SIGINT.
        SystemExit: After SIGTERM.
    """

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(number)
        raise StoppedError(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    except StoppedError as stopped:
        _wait(children)
        if stopped.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(app.TERMINATED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: Sequence[Child]) -> None:
    for child in children:
        while child.process.poll() is None:
            with suppress(StoppedError):  # a further signal was passed on too
                child.process.wait()
