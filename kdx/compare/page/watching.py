"""The page kept up to date while runs go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kdx.compare.page.writing import write
from kdx.compare.runs import RunRecord, find_runs

WATCHED = ("run.json", "config.yaml", "metrics.json", "metrics.csv", "reliability.json", "evaluations", "views.png")
Signature = frozenset[tuple[str, str, int, int]]


def watch(
    roots: Sequence[str | Path],
    path: Path,
    title: str | None = None,
    against: str | None = None,
    *,
    seconds: float = 10.0,
    find: Callable[[Sequence[str | Path]], Sequence[RunRecord]] = find_runs,
    tell: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Looks at the runs under `roots` every so many seconds and writes the page when something has changed.

    It goes on until it is interrupted (Ctrl-C). `find` gives the runs, so that a caller may choose among them; `tell` says
    what was written. An error of the disk is told, and tried again the next time.
    """
    before: Signature | None = None
    while True:
        runs = find(roots)
        now = signature(runs)
        if now != before:
            try:
                write(runs, path, title, against=against, refresh=seconds)
                before = now
                going = sum(run.state == "running" for run in runs)
                tell(f"{path}: {len(runs)} runs, {going} going")
            except OSError as error:
                tell(f"{path} was not written: {error}; trying again")
        sleep(seconds)


def signature(runs: Sequence[RunRecord]) -> Signature:
    """What changes when one of the runs has something new to show."""
    found: set[tuple[str, str, int, int]] = set()
    for run in runs:
        found.add((str(run.path), run.state, 0, 0))
        for name in WATCHED:
            try:
                stat = (run.path / name).stat()
            except OSError:
                continue
            found.add((str(run.path), name, stat.st_mtime_ns, stat.st_size))
    return frozenset(found)
