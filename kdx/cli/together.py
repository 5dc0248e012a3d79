"""Launcher of Hydra for sweeps: `launcher=together`, jobs in lock-step on one device, which share what they have in common."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from kdx.cli.launchers import MODULE
from kdx.cli.sweep_job import NO_SCORE, checked, has_ranks, reason_to_skip, run_job
from kdx.config.errors import ConfigError
from kdx.config.identity import digest
from kdx.config.schema import RunConfig, to_plain
from kdx.run.folder import RunFolder
from kdx.run.ranks import processes

if TYPE_CHECKING:
    from kdx.training.lockstep import Lane, Lockstep

SEEN = ("seed", "data", "views", "mixing", "augmentation", "interpolation", "teacher")  # by the teacher, and what it is


@dataclass
class Job:
    """A job of the sweep: its config as Hydra composed it and, if it is valid, checked; its folder; its result."""

    words: list[str]
    composed: DictConfig
    folder: RunFolder
    config: RunConfig | None
    score: float = NO_SCORE

    @property
    def name(self) -> str:
        """The name of its folder, and of its lane."""
        return self.folder.path.name


class TogetherLauncher(Launcher):
    """Trains up to `jobs` jobs at a time in lock-step.

    Those are together whose teacher sees the same images, wherever they are in the sweep. A job that fails harms no other.
    """

    __module__ = MODULE

    def __init__(self, jobs: int = 4) -> None:
        self.jobs = jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Return the results of all jobs, in their order. ConfigError if a job cannot be trained together with others."""
        if self.jobs < 1:
            raise ConfigError(f"hydra.launcher.jobs={self.jobs}: expected at least 1")
        setup_globals()
        try:
            return [_result(job) for job in self._jobs(job_overrides, initial_job_idx)]
        finally:
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
            for file in _taken_files():  # a job's log is not that of the sweep
                file.close()

    def _jobs(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Job]:
        """Return all jobs, done."""
        jobs: list[Job] = []
        groups: dict[str, list[Job]] = {}
        for number, words in enumerate(job_overrides, initial_job_idx):
            job = self._job(number, list(words))
            jobs.append(job)
            if job.config is None:
                continue
            _refuse(job.config, job.name)
            if reason_to_skip(job.config, job.folder) is None:
                groups.setdefault(_seen_by_teacher(job.config), []).append(job)
            else:
                job.score = run_job(job.config, job.folder, _nothing)
        for group in groups.values():
            for first in range(0, len(group), self.jobs):
                self._train(group[first : first + self.jobs])
        return jobs

    def _job(self, number: int, words: list[str]) -> Job:
        composed = self.context.config_loader.load_sweep_config(self.config, words)
        sweep = Path(str(self.config.hydra.sweep.dir)).absolute()
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
            composed.hydra.runtime.output_dir = str(sweep / str(composed.hydra.sweep.subdir))
        folder = RunFolder(Path(composed.hydra.runtime.output_dir), sweep.name, tuple(composed.hydra.overrides.task))
        configure_log(composed.hydra.job_logging, composed.hydra.verbose)
        self.context.callbacks.on_job_start(config=composed, task_function=self.task)
        own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        singleton = HydraConfig.instance()
        before = singleton.cfg
        singleton.set_config(composed)  # what a config says of its job, such as ${hydra:job.num}, is looked up there
        try:
            return Job(words, composed, folder, checked(own, folder.path))
        finally:
            singleton.cfg = before

    def _train(self, jobs: Sequence[Job]) -> None:
        """Train jobs in lock-step, and wait for all. KeyboardInterrupt or SIGTERMException after a signal."""
        from kdx.training.lockstep import Lockstep

        lockstep = Lockstep([job.name for job in jobs])
        with _logs(jobs, lockstep), lockstep.interruption.listening():
            lockstep.run([functools.partial(_run, job) for job in jobs])


def _refuse(config: RunConfig, name: str) -> None:
    """Raise ConfigError if a job has several devices or processes, or settings that torch has for the whole process."""
    if has_ranks(config) or processes() > 1:
        raise ConfigError(
            f"launcher=together trains on one device in one process, and {name} has trainer.devices="
            f"{config.trainer.get('devices')}: use trainer.devices=1 trainer.num_nodes=1, or launcher=basic"
        )
    if config.compile is not None:
        raise ConfigError(
            "launcher=together trains several networks in one process, for all of which torch decides what is compiled, and "
            f"{name} has compile={config.compile}; use compile=null and not speed=max, or launcher=basic"
        )


def _nothing(config: RunConfig, folder: RunFolder) -> float:
    """Return no score: the job was to be skipped, and another process has left it meanwhile. The same command trains it."""
    return NO_SCORE


def _seen_by_teacher(config: RunConfig) -> str:
    plain = to_plain(config)
    return digest([*(plain[name] for name in SEEN), config.resolution.teacher])


def _run(job: Job, lane: Lane) -> None:
    """Train a job in its lane. After a signal all jobs end; it is acted on when all have ended."""
    assert job.config is not None and lane.interruption is not None
    if lane.interruption.received is not None:
        return
    try:
        job.folder.path.mkdir(parents=True, exist_ok=True)  # its log begins before it trains
        job.score = run_job(job.config, job.folder, functools.partial(_trained, lane))
    except (KeyboardInterrupt, SystemExit):
        if lane.interruption.received is None or lane.interruption.at_once:
            raise


def _trained(lane: Lane, config: RunConfig, folder: RunFolder) -> float:
    from kdx.experiment import build
    from kdx.experiment.train import train

    parts = build.parts(config, probed=True)
    parts.sharing = lane
    return train(parts, folder).get(config.monitor, NO_SCORE)


@contextmanager
def _logs(jobs: Sequence[Job], lockstep: Lockstep) -> Iterator[None]:
    """Have each job log to its own files; on the console, a line begins with the name of its job."""
    root = logging.getLogger()
    files: list[logging.FileHandler] = []
    for job in jobs:
        configure_log(job.composed.hydra.job_logging, job.composed.hydra.verbose)
        own = _taken_files()
        for handler in own:
            handler.addFilter(functools.partial(_is_of, job.name, lockstep))
        files += own
    for console in root.handlers:
        console.setFormatter(_Named(console.formatter, lockstep))
    for file in files:
        root.addHandler(file)
    try:
        yield
    finally:
        for file in files:
            root.removeHandler(file)
            file.close()


def _taken_files() -> list[logging.FileHandler]:
    """Return the files to which all jobs log, which they no longer do."""
    root = logging.getLogger()
    files = [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]
    for file in files:
        root.removeHandler(file)
    return files


def _is_of(name: str, lockstep: Lockstep, record: logging.LogRecord) -> bool:
    return lockstep.working is not None and lockstep.working.name == name


class _Named(logging.Formatter):
    """Puts the name of the job that works before a record that is formatted as without it."""

    def __init__(self, inner: logging.Formatter | None, lockstep: Lockstep) -> None:
        super().__init__()
        self.inner, self.lockstep = inner or logging.Formatter(), lockstep

    def format(self, record: logging.LogRecord) -> str:
        formatted, working = self.inner.format(record), self.lockstep.working
        return formatted if working is None else f"{working.name}: {formatted}"


def _result(job: Job) -> JobReturn:
    result = JobReturn(overrides=job.words, working_dir=str(job.folder.path), status=JobStatus.COMPLETED)
    value: Any = job.score
    result.return_value = value
    return result
