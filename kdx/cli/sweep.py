"""Hydra callbacks of a sweep (`-m`): equal-budget baselines, and a comparison with a report at the end."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
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
from kdx.cli.train import job_runner
from kdx.config.baselines import DETERMINED
from kdx.config.check import check
from kdx.config.errors import ConfigError, nearest
from kdx.config.hydra_versions import of_context
from kdx.config.run_names import what_it_computes
from kdx.run.masking import mask, masked
from kdx.run.ranks import own_rank
from kdx.run.sweep_folder import PLAN, Plan, count, read_plan, shown, statuses, write_plan

log = logging.getLogger("kdx")

CHECKED = 20  # jobs that are checked before the first one starts
LISTED = 20  # jobs without a result that are named at the end


class Sweep(Callback):
    """Checks the baselines of a sweep before its jobs; runs them and writes the comparison after its jobs.

    The jobs of a baseline are those of the grid without the overrides that the baseline fixes; so a sweep over three
    temperatures has one label-only baseline per seed, not three.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _exit_on_error():
            os.environ["KDX_SWEEP_DIR"] = str(Path(config.hydra.sweep.dir).absolute())  # for processes in which jobs run
            for batch in baseline_jobs(config).values():
                check(job_config(config, batch[0]))
            if own_rank() == 0:
                _check_words(config)
                _write_plan(config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        file = Path(config.hydra.sweep.dir) / "multirun.yaml"  # written by Hydra, with the overrides
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
        if masked(content) != content:
            file.write_text(yaml.safe_dump(masked(content), sort_keys=False), encoding="utf-8")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with _exit_on_error():
            baselines = [job for batch in baseline_jobs(config).values() for job in batch]
            if baselines:
                _launch(config, baselines)
        if own_rank() == 0:
            folder = Path(config.hydra.sweep.dir)
            compare(folder, next(iter(requested_baselines(config)), None))
            if not tell(folder):
                sys.exit(app.FAILED)


def _check_words(config: DictConfig) -> None:
    """Raise ConfigError if a value of the sweep is invalid, before the first job trains; of many values, the first ones."""
    try:
        planned = jobs(config)
    except ConfigError:  # a sweeper that draws values
        return
    seen: set[str] = set()
    looked_at = 0
    for words in planned:
        if not seen.issuperset(words) and looked_at < CHECKED:
            seen.update(words)
            looked_at += 1
            check(job_config(config, words))


def _write_plan(config: DictConfig) -> None:
    """Write which jobs the sweep has; nothing for a sweeper that draws values."""
    try:
        planned = [*jobs(config), *(job for batch in baseline_jobs(config).values() for job in batch)]
    except ConfigError:
        return
    folders = {f"{number}-{_name(config, words)}": tuple(words) for number, words in enumerate(planned)}
    attempts = int(config.get("max_attempts", 1))
    command = (Path(sys.argv[0]).name, *sys.argv[1:])
    folder = Path(config.hydra.sweep.dir)
    if (folder / PLAN).is_file():
        _refuse_other_jobs(folder, folders)
    write_plan(folder, Plan(command, str(Path.cwd()), folders, attempts))


def _refuse_other_jobs(folder: Path, planned: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigError if the sweep in the folder has a job in the place of another one."""
    there = read_plan(folder).jobs
    for name, words in planned.items():
        old, new = (shown(what_it_computes([mask(word) for word in job])) for job in (there.get(name, words), words))
        if old != new:
            only = [" ".join(word for word in one if word not in other) or "nothing" for one, other in ((old, new), (new, old))]
            raise ConfigError(
                f"{folder} holds another sweep; use sweep=new, or sweep=OTHER_NAME\n  {name}: {only[0]} -> {only[1]}"
            )


def _name(config: DictConfig, words: Sequence[str]) -> str:
    """Return the part of a job's folder after its number, as hydra.sweep.subdir has it."""
    own = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    name = own.get("name", str(config.get("name")))
    return f"{name}-{own['baseline']}" if "baseline" in own and "hydra.sweep.subdir" in own else name


def tell(folder: Path) -> bool:
    """Print which jobs have no result, and why. Return whether none has failed."""
    try:
        found = statuses(folder)
    except ValueError:
        return True
    unfinished = [status for status in found if status.state not in ("finished", "pruned")]
    for status in unfinished[:LISTED]:
        why = status.error or status.state
        print(f"kdx: {status.folder.name} ({' '.join(shown(status.overrides))}): {why}", file=sys.stderr)
    if unfinished:
        told = ", ".join(f"{number} {state}" for state, number in count(found).items())
        print(f"kdx: {told}; the same command goes on with this sweep, kdx-sweep status {folder} shows it", file=sys.stderr)
    return not any(status.state == "failed" for status in found)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Exit on an exception, which Hydra would only log as a warning in a callback."""
    try:
        yield
    except Exception as error:
        sys.exit(app.report(error))


def _launch(config: DictConfig, batch: list[list[str]]) -> None:
    hydra: Any = GlobalHydra.instance().hydra
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config), **of_context())
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=job_runner(), config=config)
    log.info("%d baseline runs: %s", len(batch), ", ".join(requested_baselines(config)))
    for result in launcher.launch(batch, initial_job_idx=_count(config)):
        _ = result.return_value  # raises the exception of the job


def requested_baselines(config: DictConfig) -> list[str]:
    """Return the baselines in the overrides of the sweep; those of an experiment file apply only to single runs."""
    is_overridden = any(override.key_or_group == "baselines" for override in _sweep_overrides(config))
    return list(config.get("baselines") or []) if is_overridden else []


def baseline_jobs(config: DictConfig) -> dict[str, list[list[str]]]:
    """Return the overrides of the jobs of each baseline by name; empty without `baselines`. ConfigError if not a grid."""
    names = requested_baselines(config)
    overrides = _overrides(config) if names else []
    batches = {}
    for baseline in names:
        if baseline not in DETERMINED:
            hint = nearest(baseline, list(DETERMINED))
            raise ConfigError(f"Unknown baseline '{baseline}'.{hint} Available: {', '.join(DETERMINED)}")
        kept = [override for override in overrides if not _fixes(baseline, override)]
        folder = f"hydra.sweep.subdir=${{hydra.job.num}}-${{name}}-{baseline}"
        settings = parse([f"baseline={baseline}", "baselines=[]", folder])
        try:
            (batch,) = BasicSweeper.split_arguments([*kept, *settings], None)
        except HydraException as error:
            raise ConfigError(f"baselines need a grid of values, such as seed=range(3): {error}") from None
        batches[baseline] = batch
    return batches


def compare(folder: Path, against: str | None) -> None:
    """Print the comparison of the runs in `folder`, and write it there with `report.html`. Exceptions are only logged."""
    from kdx.compare.sweep_summary import write

    try:
        write(folder, against)
    except Exception as error:  # a failed comparison must not fail a sweep whose runs are finished
        log.warning("Comparison failed (%s: %s); try: kdx-report %s", type(error).__name__, error, folder)


def _sweep_overrides(config: DictConfig) -> list[Override]:
    """Return all overrides of the sweep, those of hparams_search first."""
    params = config.hydra.sweeper.get("params") or {}
    return parse([*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task])


def _overrides(config: DictConfig) -> list[Override]:
    """Return the overrides of the sweep without `baselines` and `baseline`."""
    return [override for override in _sweep_overrides(config) if override.key_or_group not in ("baselines", "baseline")]


def parse(texts: Sequence[str]) -> list[Override]:
    """Return overrides in Hydra's grammar; the config must be open."""
    hydra: Any = GlobalHydra.instance().hydra
    parsed: list[Override] = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(texts))
    return parsed


def _fixes(baseline: str, override: Override) -> bool:
    """Return whether the baseline fixes the key of this override."""
    path = override.package or override.key_or_group
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in DETERMINED[baseline])


def jobs(config: DictConfig) -> list[list[str]]:
    """Return the overrides of each job of the sweep, without baselines. ConfigError if they are not a grid."""
    try:
        (batch,) = BasicSweeper.split_arguments(_sweep_overrides(config), None)
    except HydraException as error:
        raise ConfigError(f"Cannot preview a sweep that is not a grid of values, such as seed=range(3): {error}") from None
    return batch


def _count(config: DictConfig) -> int:
    """Return the number of jobs of the sweep, which is the first job number of the baselines; equal on all ranks."""
    return len(jobs(config))


def multirun_config(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Return the config of a sweep as its callbacks receive it, with the `hydra` node."""
    hydra: Any = GlobalHydra.instance().hydra
    composed: DictConfig = hydra.compose_config(
        config_name=config_name, overrides=list(overrides), run_mode=RunMode.MULTIRUN, with_log_configuration=False
    )
    return composed


def job_config(config: DictConfig, job: Sequence[str]) -> DictConfig:
    """Return the config of one job of the sweep, without the `hydra` node."""
    hydra: Any = GlobalHydra.instance().hydra
    composed: DictConfig = hydra.config_loader.load_sweep_config(config, list(job))
    with open_dict(composed):
        del composed["hydra"]
    return composed
