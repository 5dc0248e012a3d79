"""Launchers of Hydra for sweeps: `launcher=gpus`, several jobs of a machine at a time, each in a process of its own."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from kdx.cli.child import CONSOLE, Child, forwarding
from kdx.cli.sweep_job import NO_SCORE, checked, options, own_words, reason_to_skip
from kdx.config.errors import ConfigError
from kdx.run.durations import duration
from kdx.run.folder import RunFolder
from kdx.run.slots import Slot, take
from kdx.run.sweep_folder import JobStatus as Status
from kdx.run.sweep_folder import status_of

MODULE = "hydra_plugins.kdx"
SECONDS = 0.2  # between two looks at the processes


class GpuLauncher(Launcher):
    """Starts each job of a sweep as a command of its own, on as many free GPUs as it needs, and the next one when it ends.

    All sweeps of a user on a machine share its GPUs. A job that fails, is killed or leaves its GPU in a bad state harms
    no other.
    """

    __module__ = MODULE

    def __init__(self, gpus: str | Sequence[int | str] = "auto", jobs_per_gpu: int = 1, gpus_per_job: int = 1) -> None:
        self.gpus, self.jobs_per_gpu, self.gpus_per_job = gpus, jobs_per_gpu, gpus_per_job
        self.running: list[Child] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Return the results of all jobs, in their order, once the last one has ended."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        names, folder = self.names(), Path(str(self.config.hydra.sweep.dir)).absolute()
        waiting = deque((number, list(words)) for number, words in enumerate(job_overrides, initial_job_idx))
        places: list[Path] = []
        took: list[float] = []
        with forwarding(self.running):
            while waiting or self.running:
                while waiting and (slots := take(names, self.gpus_per_job, self.jobs_per_gpu)):
                    places.append(self._start(*waiting.popleft(), folder, slots))
                for child in [child for child in self.running if child.ended()]:
                    self.running.remove(child)
                    took.append(child.seconds)
                    _say("%s; %s", _told(status_of(child.folder)), _left(len(waiting), len(self.running), took))
                time.sleep(SECONDS)
        return [_result(words, place) for words, place in zip(job_overrides, places, strict=True)]

    def names(self) -> list[str]:
        """Return the names of the GPUs as in CUDA_VISIBLE_DEVICES. ConfigError if there are fewer than a job needs."""
        names = visible_gpus() if self.gpus == "auto" else [str(gpu) for gpu in self.gpus]
        if len(names) < self.gpus_per_job:
            there = f"{len(names)} GPUs" if names else "no GPU"
            raise ConfigError(
                f"launcher=gpus: this machine has {there}, and a job needs {self.gpus_per_job} (hydra.launcher.gpus_per_job); "
                "without launcher=gpus, the jobs of a sweep run one after the other"
            )
        return names

    def _start(self, number: int, words: list[str], sweep: Path, slots: list[Slot]) -> Path:
        """Start a job, unless there is nothing to do for it. Return its folder."""
        composed = self.context.config_loader.load_sweep_config(self.config, words)
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
        folder = sweep / str(composed.hydra.sweep.subdir)
        job = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        config = checked(job, folder)
        reason = "its config is invalid" if config is None else reason_to_skip(config, RunFolder(folder, sweep.name))
        if reason is not None:
            _say("Skipped %s: %s", folder.name, reason)
        else:
            environment = _environment(slots)
            child = Child([*options(), *own_words(words)], folder, environment, [slot.lock for slot in slots])
            self.running.append(child)
            _say("%s started on GPU %s; its console: %s", folder.name, environment["CUDA_VISIBLE_DEVICES"], folder / CONSOLE)
        for slot in slots:
            slot.leave()
        return folder


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def register() -> None:
    """Make launcher and sweeper known to Hydra, which instantiates plug-ins only if they are in a module of `hydra_plugins`."""
    plugins = Plugins.instance()  # looks for plug-ins, for which it loads the modules of Hydra's own ones anew
    from kdx.cli.grid_sweeper import GridSweeper
    from kdx.cli.together import TogetherLauncher

    package, _, name = MODULE.partition(".")
    try:
        parent = importlib.import_module(package)
    except ImportError:  # no plug-in is installed
        parent = sys.modules[package] = ModuleType(package)
        parent.__path__ = []
    module = sys.modules[MODULE] = ModuleType(MODULE)
    setattr(parent, name, module)
    for plugin in (GpuLauncher, TogetherLauncher, GridSweeper):
        setattr(module, plugin.__name__, plugin)
        plugins.register(plugin)


def _environment(slots: Sequence[Slot]) -> Mapping[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(slot.name for slot in slots)}


def _left(waiting: int, running: int, took: Sequence[float]) -> str:
    """Return how many jobs are left, and how long they take if each takes as long as those that have ended."""
    if not waiting + running:
        return "no job left"
    seconds = sum(took) / len(took) * (waiting + running) / (running + 1)
    return f"{running} running, {waiting} waiting, about {duration(seconds)} left"


def _told(status: Status) -> str:
    ended = f": {status.error}" if status.state == "failed" else "" if status.score is None else f": {status.score:.4f}"
    return f"{status.folder.name} {status.state}{ended}"


def _result(words: Sequence[str], folder: Path) -> JobReturn:
    result = JobReturn(overrides=list(words), working_dir=str(folder), status=JobStatus.COMPLETED)
    score: Any = status_of(folder).score
    result.return_value = NO_SCORE if score is None else score
    return result


def _say(text: str, *values: object) -> None:
    """Print a line; Hydra has set up no logging between jobs."""
    print(text % values, file=sys.stderr, flush=True)
