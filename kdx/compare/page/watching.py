"""Update the page while runs are in progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kdx.compare.page.writing import write
from kdx.compare.runs import RunRecord, find_runs

RESULTS = ("metrics.json", "metrics.csv", "reliability.json", "evaluations", "views.png")
WATCHED = ("run.json", "config.yaml", "job.json", "progress.json", *RESULTS)
Signature = frozenset[tuple[str, str, int, int]]


def watch(
    roots: Sequence[str | Path],
    path: Path,
    title: str | None = None,
    against: str | None = None,
    *,
    seconds: float = 10.0,
    find: Callable[[Sequence[str | Path]], Sequence[RunRecord]] = find_runs,
    report: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Check the runs under `roots` every `seconds` and write the page when something has changed, until Ctrl-C.

    If the page cannot be written, the error is reported and the next check tries again.

    Args:
        roots: Folders of runs, as for `find_runs`.
        path: The HTML file.
        title: The title of the page; by default the names of the runs.
        against: The baseline, as for `compare`.
        seconds: The time between two checks.
        find: Returns the runs under the roots; a caller can pass a function that selects runs.
        report: Receives a line of text after each write or error.
        sleep: Waits for a number of seconds.
    """
    before: Signature | None = None
    while True:
        runs = find(roots)
        now = signature(runs)
        if now != before:
            try:
                write(runs, path, title, against=against, refresh=seconds)
                before = now
                running = sum(run.state == "running" for run in runs)
                report(f"{path}: {len(runs)} runs, {running} running")
            except OSError as error:
                report(f"{path} was not written: {error}; trying again")
        sleep(seconds)


def signature(runs: Sequence[RunRecord]) -> Signature:
    """Return the states and file versions of the runs; the value changes if a run has new content."""
    entries: set[tuple[str, str, int, int]] = set()
    for run in runs:
        entries.add((str(run.path), run.state, 0, 0))
        for name in WATCHED:
            try:
                stat = (run.path / name).stat()
            except OSError:
                continue
            entries.add((str(run.path), name, stat.st_mtime_ns, stat.st_size))
    return frozenset(entries)
