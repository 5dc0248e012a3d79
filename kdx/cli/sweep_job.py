"""A job of a sweep: done once, tried again after a failure, left to the process that works on it, and no end of the sweep."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from kdx.cli import arguments
from kdx.cli.child import Child, forwarding
from kdx.config.check import check
from kdx.config.identity import job_identity
from kdx.config.schema import RunConfig, to_plain
from kdx.config.trainer import check_processes
from kdx.run import job
from kdx.run.folder import RunFolder
from kdx.run.ranks import own_rank, processes, started_together
from kdx.run.sweep_folder import CANCELED
from kdx.run.sweep_progress import position, progress

log = logging.getLogger("kdx")

NO_SCORE = math.nan  # of a job without a result
OF_SWEEP = ("baselines", "launcher", "sweep", "hydra.sweep", "hydra.launcher")  # what only the sweep as a whole needs
LOOKED_AT = 500  # jobs that are looked at when one starts; of more jobs, not every one looks at all
Train = Callable[[RunConfig, RunFolder], float]


class FailedError(ValueError):
    """A job failed in a process of its own, which has recorded and printed why."""


def checked(composed: DictConfig, folder: Path) -> RunConfig | None:
    """Return the checked config of a job; None if it is invalid, which is logged and recorded, and stops no other job."""
    try:
        config = check(composed)
        check_processes(config.trainer, processes())
        return replace(config, baselines=[])  # a sweep runs them as separate jobs, once per seed
    except Exception as error:
        job.fail(folder, error)
        log.error("%s failed (%s)", folder.name, job.attempts(folder)[-1].error)
        return None


def run_job(config: RunConfig, folder: RunFolder, train: Train) -> float:
    """Return the score of a job, after `train` if it has none yet. An exception of `train` is logged and recorded."""
    reason = reason_to_skip(config, folder)
    if reason is not None:
        log.info("Skipped %s: %s", folder.path.name, reason)
        return _score(config, folder)
    tell_place(folder.path)
    try:
        return recorded(config, folder, train)
    except Exception:
        log.error("%s failed (%s)", folder.path.name, job.attempts(folder.path)[-1].error)
        return NO_SCORE


def tell_place(folder: Path) -> None:
    """Log which job of its sweep starts, how far the others are, and how long the sweep still takes."""
    place = position(folder)
    if place is None or own_rank() != 0:
        return
    number, total = place
    is_looked_at = number == 1 or number % (1 + total // LOOKED_AT) == 0
    whole = f". {progress(folder.parent, starting=folder.name)}" if is_looked_at else ""
    log.info("Job %d of %d starts: %s%s", number, total, folder.name, whole)


def recorded(config: RunConfig, folder: RunFolder, train: Train) -> float:
    """Return what `train` returns. An exception is recorded, and raised."""
    before = len(job.attempts(folder.path))
    try:
        return train(config, folder)
    except Exception as error:
        if len(job.attempts(folder.path)) == before:  # it did not come as far as to hold the folder
            job.fail(folder.path, error)
        raise


def has_ranks(config: RunConfig) -> bool:
    """Return whether Lightning would start this command again for further ranks; in a sweep, that would be the whole sweep."""
    devices, nodes = str(config.trainer.get("devices", 1)), config.trainer.get("num_nodes", 1)
    return (devices != "1" or nodes != 1) and not started_together()


def apart(config: RunConfig, folder: RunFolder) -> float:
    """Train by a command of its own, so that its further ranks are those of this job alone. Return its score."""
    child = Child([*options(), *own_words(folder.overrides)], folder.path, on_terminal=True)
    with forwarding([child]):
        child.process.wait()
    child.ended()
    if child.process.returncode:
        failed = job.failures(folder.path)
        raise FailedError(failed[-1].error if failed else f"its command ended with exit status {child.process.returncode}")
    return _score(config, folder)


def options() -> list[str]:
    """Return the options of the sweep's command that its jobs need too, such as --config-dir."""
    given = arguments.parse(sys.argv[1:]).options
    return [f"{name}={value}" for name, value in given.items() if name in arguments.EXPECTED and name != "--cfg"]


def own_words(words: Sequence[str]) -> list[str]:
    """Return the overrides of a job without those that only its sweep needs."""
    ignored = tuple(f"{key}{end}" for key in OF_SWEEP for end in ("=", "."))
    return [word for word in words if not word.startswith((*ignored, "hydra/launcher="))]


def reason_to_skip(config: RunConfig, folder: RunFolder) -> str | None:
    """Return why there is nothing to do for this job now; None if it is to be trained."""
    path = folder.path
    if (path.parent / CANCELED).exists():
        return "the sweep was canceled"
    if job.state(path) == "finished":
        if folder.read("run.json").get("identity") != job_identity(to_plain(config)):
            return None  # of another experiment: training refuses the folder
        if job.failures(path):
            job.forget_failures(path)
        return "finished"
    if own_rank() == 0 and job.is_held(path):  # else it may be the first rank that works on it
        return f"another process works on it ({job.attempts(path)[-1] if job.attempts(path) else 'just started'})"
    failures = job.failures(path)
    if len(failures) >= config.max_attempts:
        return f"failed {len(failures)} times ({failures[-1].error}); to try again: kdx-sweep retry {Path(path).parent}"
    return None


def _score(config: RunConfig, folder: RunFolder) -> float:
    if job.state(folder.path) != "finished":
        return NO_SCORE
    value: float = folder.read("metrics.json")["metrics"].get(config.monitor, NO_SCORE)
    return value
