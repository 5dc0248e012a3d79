"""How far a whole sweep is, and when it will end: read off the folders of its jobs, as `kdx.run.sweep_folder` tells them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdx.run.durations import duration
from kdx.run.sweep_folder import CANCELED, JobStatus, count, read_plan, statuses


@dataclass(frozen=True)
class SweepProgress:
    """The jobs of a sweep, and the estimated seconds until the last one ends; None if no job runs or nothing is known yet."""

    jobs: tuple[JobStatus, ...]
    seconds_left: float | None
    is_canceled: bool

    @property
    def is_going_on(self) -> bool:
        """Whether a job is running, or will be as soon as its turn comes."""
        states = {one.state for one in self.jobs}
        return "running" in states or ("pending" in states and not self.is_canceled)

    @property
    def failed(self) -> list[JobStatus]:
        """The jobs that failed."""
        return [one for one in self.jobs if one.state == "failed"]

    def __str__(self) -> str:
        """Return, for example, "3 of 12 jobs finished, 1 running, 8 pending; about 7 min left"."""
        counts = count(self.jobs)
        finished = f"{counts.pop('finished', 0)} of {len(self.jobs)} jobs finished"
        text = ", ".join([finished, *(f"{number} {state}" for state, number in counts.items())])
        if self.is_canceled and any(state != "pruned" for state in counts):
            text += "; canceled"
        return text if self.seconds_left is None else f"{text}; about {duration(self.seconds_left)} left"


def progress(folder: Path, starting: str = "") -> SweepProgress:
    """Return how far the sweep in a folder is; the job `starting` counts as running. ValueError if it is no sweep."""
    jobs = [replace(one, state="running") if one.folder.name == starting else one for one in statuses(folder)]
    return SweepProgress(tuple(jobs), seconds_left(jobs), (folder / CANCELED).exists())


def position(folder: Path) -> tuple[int, int] | None:
    """Return the place of a job in its sweep, from 1, and the number of jobs; None if no plan names the folder."""
    try:
        names = list(read_plan(folder.parent).jobs)
        return names.index(folder.name) + 1, len(names)
    except ValueError:
        return None


def seconds_left(jobs: Sequence[JobStatus]) -> float | None:
    """Estimate the time until the end of a sweep, of which as many jobs run at a time as now. None without a running job.

    A job takes the median of those that have finished, or as long as the running ones still take.
    """
    running = [one.seconds_left for one in jobs if one.state == "running"]
    took = [one.seconds for one in jobs if one.state == "finished" and one.seconds is not None]
    known = [left for left in running if left is not None]
    if not running or not (took or known):
        return None
    per_job = statistics.median(took) if took else max(known)
    waiting = sum(one.state in ("pending", "stopped") for one in jobs)
    return max(per_job if left is None else left for left in running) + waiting * per_job / len(running)
