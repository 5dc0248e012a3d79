"""What a sweep (`-m`) adds to Hydra's grid: equal-budget baselines, and a comparison with a report at its end."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict

from kdx.cli import app
from kdx.cli.train import train_job
from kdx.config.baselines import DETERMINED
from kdx.config.check import check
from kdx.config.errors import ConfigError, nearest

log = logging.getLogger("kdx")


class Sweep(Callback):
    """Before the jobs of a sweep: are its baselines possible? After them: the baselines, then the comparison.

    A baseline is a job like the others of the grid, without the overrides that the baseline fixes; so a sweep over three
    temperatures has one baseline from labels per seed, not three.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _leaving():
            for batch in baseline_jobs(config).values():
                check(job_config(config, batch[0]))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with _leaving():
            added = [job for batch in baseline_jobs(config).values() for job in batch]
            if added:
                _launch(config, added)
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            compare(Path(config.hydra.sweep.dir), next(iter(requested_baselines(config)), None))


@contextmanager
def _leaving() -> Iterator[None]:
    """Hydra turns what a callback raises into a warning; a mistake ends the command instead."""
    try:
        yield
    except Exception as error:
        sys.exit(app.report(error))


def _launch(config: DictConfig, batch: list[list[str]]) -> None:
    hydra: Any = GlobalHydra.instance().hydra
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=train_job, config=config)
    log.info("%d runs as baselines: %s", len(batch), ", ".join(requested_baselines(config)))
    for done in launcher.launch(batch, initial_job_idx=_count(config)):
        _ = done.return_value  # raises what the job raised


def requested_baselines(config: DictConfig) -> list[str]:
    """The baselines that the sweep's own overrides name; those of an experiment are for a single run of it."""
    named = any(override.key_or_group == "baselines" for override in _typed(config))
    return list(config.get("baselines") or []) if named else []


def baseline_jobs(config: DictConfig) -> dict[str, list[list[str]]]:
    """The overrides of each baseline's jobs, by its name; empty without `baselines`. ConfigError where they make no grid."""
    wanted = requested_baselines(config)
    overrides = _overrides(config) if wanted else []
    batches = {}
    for baseline in wanted:
        if baseline not in DETERMINED:
            hint = nearest(baseline, list(DETERMINED))
            raise ConfigError(f"Unknown baseline '{baseline}'.{hint} Available: {', '.join(DETERMINED)}")
        kept = [override for override in overrides if not _decides(baseline, override)]
        folder = f"hydra.sweep.subdir=${{hydra.job.num}}-${{name}}-{baseline}"
        added = _parse([f"baseline={baseline}", "baselines=[]", folder])
        try:
            (batch,) = BasicSweeper.split_arguments([*kept, *added], None)
        except HydraException as error:
            raise ConfigError(f"baselines need a grid of values, such as seed=range(3): {error}") from None
        batches[baseline] = batch
    return batches


def compare(folder: Path, against: str | None) -> None:
    """Print how the runs under `folder` compare, and write it there with `report.html`; what fails is said, not raised."""
    from kdx.compare.sweep_summary import write

    try:
        write(folder, against)
    except Exception as error:  # the runs are done and stored; nothing that looks at them may lose them
        log.warning("no comparison (%s: %s); try: kdx-report %s", type(error).__name__, error, folder)


def _typed(config: DictConfig) -> list[Override]:
    """All overrides of the sweep, those of hparams_search first."""
    params = config.hydra.sweeper.get("params") or {}
    return _parse([*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task])


def _overrides(config: DictConfig) -> list[Override]:
    """Those that a baseline is a baseline of."""
    return [override for override in _typed(config) if override.key_or_group not in ("baselines", "baseline")]


def _parse(texts: Sequence[str]) -> list[Override]:
    hydra: Any = GlobalHydra.instance().hydra
    parsed: list[Override] = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(texts))
    return parsed


def _decides(baseline: str, override: Override) -> bool:
    """Whether the baseline sets what this override would set."""
    path = override.package or override.key_or_group
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in DETERMINED[baseline])


def jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of each job of the sweep, without baselines. ConfigError where they make no grid."""
    try:
        (batch,) = BasicSweeper.split_arguments(_typed(config), None)
    except HydraException as error:
        raise ConfigError(f"The jobs of this sweep are not a grid, and only a grid can be previewed: {error}") from None
    return batch


def _count(config: DictConfig) -> int:
    """How many jobs the sweep itself had, whose numbers the baselines go on from; from its words, so that ranks agree."""
    return len(jobs(config))


def multirun_config(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The config of a sweep as its callbacks see it, with Hydra's part."""
    hydra: Any = GlobalHydra.instance().hydra
    composed: DictConfig = hydra.compose_config(
        config_name=config_name, overrides=list(overrides), run_mode=RunMode.MULTIRUN, with_log_configuration=False
    )
    return composed


def job_config(config: DictConfig, job: Sequence[str]) -> DictConfig:
    """The config of one job of the sweep, without Hydra's part."""
    hydra: Any = GlobalHydra.instance().hydra
    composed: DictConfig = hydra.config_loader.load_sweep_config(config, list(job))
    with open_dict(composed):
        del composed["hydra"]
    return composed
