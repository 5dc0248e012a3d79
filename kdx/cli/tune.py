"""kdx-tune: search for good values of a run's settings by Optuna, with pruning, in several processes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from kdx.cli import app, launchers, sweep
from kdx.cli.arguments import Arguments
from kdx.cli.compose import opened
from kdx.cli.help import Guide
from kdx.cli.launchers import GpuLauncher
from kdx.cli.sweep_job import own_words
from kdx.cli.tuning.settings import Mode, Settings, is_own, objectives, settings
from kdx.cli.tuning.space import Space, space
from kdx.config.check import check
from kdx.config.errors import ConfigError
from kdx.config.run_names import sweep_id
from kdx.config.schema import RunConfig
from kdx.run.masking import masked
from kdx.run.sweep_folder import Plan

GUIDE = Guide(
    name="tune",
    config="tune",
    purpose="Search for good settings by Optuna, selected on val, in one or several processes.",
    result=(
        "OUTPUTS/sweeps/NAME/ with a run folder per trial, study.log (the study), study.json (history, importances), "
        "comparison.md and report.html; and the best trial as a command of kdx-train."
    ),
    examples=(
        ("kdx-tune hparams_search=digits_optuna", "a search that an option describes; again: it goes on"),
        ("kdx-tune temperature.value=interval(1,20) n_trials=50", "a key between two values, in quotes in most shells"),
        ("kdx-tune optimizer.lr=tag(log,interval(1e-4,1e-2))", "on a logarithmic scale"),
        ("kdx-tune hparams_search=digits_pareto", "accuracy, calibration and latency: a Pareto front"),
    ),
    usage="[KEY=VALUES ...] [GROUP=OPTION,OPTION ...] [any words of kdx-train]",
    more_groups={"hparams_search": "hparams_search=OPTION: the values of a search, and its number of trials"},
    note="All groups and keys of a run: kdx-train --help.",
)
NOT_HERE = {
    "baselines": "kdx-tune trains no baselines: add baselines= to the best trial's command",
    "hydra/sweeper": "kdx-tune has a sweeper of its own: use sampler=tpe, gp, nsgaii or random",
    "hydra.run.dir": "kdx-tune chooses the folders of its trials: use sweep=NAME, or hydra.sweep.dir=FOLDER",
}
OTHER_LAUNCHER = (
    "kdx-tune starts its trials itself: use launcher=gpus, or start the same command several times, "
    "such as in several jobs of Slurm; they share the trials"
)


def start(parsed: Arguments) -> None:
    """Search, as the arguments say. SystemExit with status 1 if trials have failed."""
    preview = parsed.options.get("--cfg") is not None
    if not preview and importlib.util.find_spec("optuna") is None:
        raise ConfigError("kdx-tune needs Optuna 5: pip install kdx[tune]")
    with opened(parsed):
        it = _composed(parsed)
        if preview:
            _print(it)
            return
        from kdx.cli.tuning import ending
        from kdx.cli.tuning.search import Search
        from kdx.cli.tuning.worker import Worker

        gpus = _gpus(it.base)
        plan = Plan((Path(sys.argv[0]).name, *sys.argv[1:]), str(Path.cwd()), {}, it.config.max_attempts)
        search = Search(it.folder, it.space, it.objectives, it.own, plan, it.config.name, it.config.seed)
        try:
            Worker(search, gpus).work()
        except (KeyboardInterrupt, SystemExit):
            ending.interrupted()
            ending.conclude(search)
            raise
        if not ending.conclude(search):
            sys.exit(app.FAILED)


@dataclass(frozen=True)
class Composed:
    """What the words say: own settings, folder, config of the sweep, space, a first trial (unchecked, checked), objectives."""

    own: Settings
    folder: Path
    base: DictConfig
    space: Space
    first: DictConfig
    config: RunConfig
    objectives: Mapping[str, Mode]


def _composed(parsed: Arguments) -> Composed:
    """Return what the words of the command say. ConfigError if a trial cannot be trained with them."""
    for key, message in NOT_HERE.items():
        if any(word.lstrip("+~").partition("=")[0] == key for word in parsed.overrides):
            raise ConfigError(message)
    launcher = next((word for word in parsed.overrides if word.startswith("launcher=")), "launcher=basic")
    if launcher not in ("launcher=basic", "launcher=gpus"):
        raise ConfigError(OTHER_LAUNCHER)
    name = parsed.config_name or "train"
    words = [word for word in parsed.overrides if not is_own(word)]
    base = sweep.multirun_config(name, words)
    params = [f"{key}={value}" for key, value in (base.hydra.sweeper.get("params") or {}).items()]
    own = settings([word for word in [*params, *parsed.overrides] if is_own(word)])
    ours = [word for word in own_words([*params, *words]) if not is_own(word) and not word.startswith("hparams_search=")]
    found = space(sweep.parse(ours))
    elsewhere = [word for word in words if word not in ours]  # Hydra's own words may need them, as launcher=gpus
    corners = [sweep.job_config(base, [*elsewhere, *corner]) for corner in found.corners()]
    first, _ = [check(corner) for corner in corners]
    goals = objectives(own, first)
    return Composed(own, _folder(base, words, goals), base, found, corners[0], first, goals)


def _folder(base: DictConfig, words: list[str], goals: Mapping[str, Mode]) -> Path:
    """Return the folder of the study: the same for the same words and objectives, whatever the number of trials."""
    if any(word.startswith("hydra.sweep.dir=") for word in words):
        return Path(str(base.hydra.sweep.dir))
    named = [f"objectives={key}:{mode}" for key, mode in goals.items()]
    identity = sweep_id(str(base.sweep), [*words, "kdx-tune=1", *named])
    return Path(str(base.outputs)) / "sweeps" / identity


def _gpus(base: DictConfig) -> GpuLauncher | None:
    """Return the launcher of GPUs if it is selected. ConfigError for another one, or without enough GPUs."""
    node = base.hydra.launcher
    target = str(node._target_)
    if target.endswith("BasicLauncher"):
        return None
    if not target.endswith("GpuLauncher"):
        raise ConfigError(OTHER_LAUNCHER)
    launcher = GpuLauncher(**{str(key): value for key, value in node.items() if key != "_target_"})
    launcher.names()
    return launcher


def _print(it: Composed) -> None:
    """Print the space as comments, and the config of the trial at its first values."""
    for key, values in it.space.swept.items():
        told = ", ".join(values["choices"]) if "choices" in values else f"{values['low']} to {values['high']}"
        print(f"# {key}: {told}{', log' if values.get('log') else ''}")
    plain: Any = OmegaConf.to_container(it.first)
    print(OmegaConf.to_yaml(OmegaConf.create(masked(plain))), end="")


def main() -> NoReturn:
    """Run kdx-tune."""
    launchers.register()
    app.run(app.Command(GUIDE, check, lambda config: None, start))


if __name__ == "__main__":
    main()
