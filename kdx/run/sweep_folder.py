"""The folder of a sweep: the plan of its jobs, and how far each is, read off the folders of the runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from kdx.run import job
from kdx.run.files import replacing
from kdx.run.masking import mask
from kdx.run.study import PRUNED

PLAN, PROGRESS, CANCELED = "sweep.json", "progress.json", "canceled"
HIDDEN = ("hydra.", "baselines=")  # overrides that every job has
State = Literal["finished", "pruned", "running", "failed", "stopped", "pending"]  # stopped: begun, and no process works on it
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Plan:
    """The command of a sweep, the folder in which it was given, and the overrides of each job by the name of its folder."""

    command: tuple[str, ...]
    folder: str
    jobs: dict[str, tuple[str, ...]]
    max_attempts: int


@dataclass(frozen=True)
class JobStatus:
    """How far a job of a sweep is."""

    folder: Path
    overrides: tuple[str, ...]
    state: State
    attempts: tuple[job.Attempt, ...]
    epoch: str = ""  # "3/60"
    seconds_left: float | None = None
    score: float | None = None  # of the monitored metric
    seconds: float | None = None  # that a finished job took, without the training of a teacher

    @property
    def host(self) -> str:
        """The host and process of the last attempt; empty if there was none."""
        return f"{self.attempts[-1].host}:{self.attempts[-1].pid}" if self.attempts else ""

    @property
    def error(self) -> str:
        """The error of the last attempt; empty if it did not fail."""
        return (self.attempts[-1].error or "") if self.attempts else ""


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan, with secrets masked. A sweep that is not canceled goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CANCELED).unlink(missing_ok=True)
    content = {
        "command": [mask(word) for word in plan.command],
        "folder": plan.folder,
        "max_attempts": plan.max_attempts,
        "jobs": {name: [mask(word) for word in words] for name, words in plan.jobs.items()},
    }
    with replacing(folder / PLAN) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_plan(folder: Path) -> Plan:
    """Return the plan of a sweep. ValueError if the folder is not one."""
    try:
        content = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        jobs = {name: tuple(words) for name, words in content["jobs"].items()}
        return Plan(tuple(content["command"]), content["folder"], jobs, content["max_attempts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{folder} has no readable {PLAN}; expected the folder of a sweep, such as outputs/sweeps/NAME"
        ) from None


def is_job(folder: Path) -> bool:
    """Return whether a folder is that of a job in the plan of a sweep."""
    folder = folder.absolute()
    try:
        return folder.name in read_plan(folder.parent).jobs
    except ValueError:
        return False


def statuses(folder: Path, monitor: str | None = None) -> list[JobStatus]:
    """Return the status of each job of a sweep, in the order of the plan; `monitor` names the metric that is the score."""
    plan = read_plan(folder)
    return [status_of(folder / name, words, plan.max_attempts, monitor) for name, words in plan.jobs.items()]


def status_of(folder: Path, overrides: Sequence[str] = (), max_attempts: int = 1, monitor: str | None = None) -> JobStatus:
    """Return the status of the run in a folder."""
    attempts, state = tuple(job.attempts(folder)), job.state(folder)
    failed = bool(attempts) and attempts[-1].error is not None
    if state == "finished" and not failed:  # a finished run of another experiment stays, and the job fails
        report = _json(folder / "metrics.json")
        name = monitor or report.get("selection", {}).get("monitor", "")
        metrics = report.get("metrics", {})
        return JobStatus(
            folder, tuple(overrides), "finished", attempts, score=metrics.get(name), seconds=_seconds(attempts, metrics)
        )
    pruned = _json(folder / PRUNED)
    if pruned and not failed and not job.is_held(folder):
        return JobStatus(folder, tuple(overrides), "pruned", attempts, str(pruned.get("epoch", "")), score=pruned.get("value"))
    shown: State = "running" if job.is_held(folder) else "failed" if failed else "stopped" if attempts else "pending"
    progress = _json(folder / PROGRESS) if state == "begun" else {}
    left = progress.get("seconds_left") if shown == "running" else None
    if left is not None:
        left = max(left - (time.time() - progress.get("time", time.time())), 0.0)
    return JobStatus(folder, tuple(overrides), shown, attempts, progress.get("epoch", ""), left, progress.get("score"))


def _seconds(attempts: Sequence[job.Attempt], metrics: Mapping[str, float]) -> float | None:
    """Return the time of a finished job: of its attempts, from the first image to the last file, else of its training."""
    times = [datetime.fromisoformat(one.ended) - datetime.fromisoformat(one.began) for one in attempts if one.ended]
    seconds = sum(time.total_seconds() for time in times) - metrics.get("teacher_seconds", 0.0)
    return max(seconds, metrics.get("seconds", 0.0)) or None


def write_progress(folder: Path, epoch: str, seconds_left: float | None, score: float | None) -> None:
    """Write how far a run is, for those who watch it. Nobody waits for this file, so a full disk does not matter."""
    content = {"epoch": epoch, "seconds_left": seconds_left, "score": score, "time": time.time()}
    draft = folder / f".{PROGRESS}.part"
    try:
        draft.write_text(json.dumps(content) + "\n", encoding="utf-8")
        os.replace(draft, folder / PROGRESS)
    except OSError:
        draft.unlink(missing_ok=True)


def shown(overrides: Iterable[str]) -> list[str]:
    """Return the overrides of a job without those that every job has."""
    return [word for word in overrides if not word.startswith(HIDDEN)]


def count(jobs: Iterable[JobStatus]) -> dict[State, int]:
    """Return the number of jobs of each state, without states that no job has."""
    found = [status.state for status in jobs]
    return {state: found.count(state) for state in STATES if state in found}


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError):
        return {}
