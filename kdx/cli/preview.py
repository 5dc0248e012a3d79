"""`--cfg job`: check a config without running it; with `-m`, list the jobs of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from kdx.cli.arguments import Arguments
from kdx.cli.compose import opened
from kdx.config.errors import ConfigError
from kdx.run.sweep_folder import shown

Check = Callable[[DictConfig], Any]


def check_job(arguments: Arguments, config_name: str, check: Check) -> None:
    """Compose the config and check it as a run does, with the same exceptions."""
    with opened(arguments):
        check(hydra.compose(config_name, list(arguments.overrides)))


def print_sweep(arguments: Arguments, config_name: str, check: Check) -> None:
    """Check the jobs of a sweep and of its baselines; print the overrides of each, then the config of the first job.

    All lines except that config are YAML comments.
    """
    from kdx.cli import sweep  # heavy imports

    with opened(arguments):
        config = sweep.multirun_config(config_name, arguments.overrides)
        jobs = sweep.jobs(config)
        baselines = [job for batch in sweep.baseline_jobs(config).values() for job in batch]
        first = _checked(config, jobs[0], 0, check)
        print(f"# {len(jobs)} jobs")
        _print(config, jobs, 0, check)
        if baselines:
            print(f"# {len(baselines)} jobs of baselines: {', '.join(sweep.requested_baselines(config))}")
            _print(config, baselines, len(jobs), check)
    print(f"# The config of job 0:\n{OmegaConf.to_yaml(first)}", end="")


def _print(config: DictConfig, jobs: Sequence[Sequence[str]], number: int, check: Check) -> None:
    for i, job in enumerate(jobs, number):
        if i:
            _checked(config, job, i, check)
        print(f"#   {i}: {' '.join(shown(job))}", flush=True)


def _checked(config: DictConfig, job: Sequence[str], number: int, check: Check) -> DictConfig:
    from kdx.cli import sweep

    composed = sweep.job_config(config, job)
    try:
        check(composed)
    except ConfigError as error:
        raise ConfigError(f"job {number} ({' '.join(job)}): {error}") from None
    return composed
