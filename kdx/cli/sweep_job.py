"""A job of a sweep: done once, tried again after a failure, left to the process that works on it, and no end of the sweep."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from kdx.config.identity import job_identity
from kdx.config.schema import RunConfig, to_plain
from kdx.run import job
from kdx.run.folder import RunFolder
from kdx.run.sweep_folder import CANCELED

log = logging.getLogger("kdx")

NO_SCORE = math.nan  # of a job without a result


def run_job(config: RunConfig, folder: RunFolder, train: Callable[[RunConfig, RunFolder], float]) -> float:
    """Return the score of a job, after `train` if it has none yet. An exception of `train` is logged and recorded."""
    reason = _skipped(config, folder)
    if reason is not None:
        log.info("Skipped %s: %s", folder.path.name, reason)
        return _score(config, folder)
    before = len(job.attempts(folder.path))
    try:
        return train(config, folder)
    except Exception as error:
        if len(job.attempts(folder.path)) == before:  # it did not come as far as to hold the folder
            job.fail(folder.path, error)
        log.error("%s failed (%s)", folder.path.name, job.attempts(folder.path)[-1].error)
        return NO_SCORE


def _skipped(config: RunConfig, folder: RunFolder) -> str | None:
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
    if job.is_held(path):
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
