"""The commands. Each composes a config, checks it, and only then imports what takes seconds to import."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kdx.config.check import ConfigError, check, conf_dir, explain_omegaconf, nearest
from kdx.config.hydra_versions import of_main
from kdx.config.schema import RunConfig

FAILED, MISUSED = 1, 2
AGAIN = "kdx-train --config-dir=RUN --config-name=rerun ckpt_path=RUN/checkpoints/last.ckpt"
NONE = "an override sets a key inside a group that is none: drop it, or choose another option"  # to an assertion of OmegaConf


def train() -> NoReturn:
    """kdx-train: train a student by the composed config."""
    run("train", train_job)


def evaluate() -> NoReturn:
    """kdx-evaluate run=DIR: measure a finished run again; or any network, on any data, under shifts."""
    run("evaluate", _evaluate)


def views() -> NoReturn:
    """kdx-views: draw what the networks would see of the first batch, without training."""
    run("train", _views)


def prepare() -> NoReturn:
    """kdx-prepare data=... to=DIR: write the splits of a data set as shards."""
    run("prepare", _prepare)


def evidence() -> NoReturn:
    """kdx-evidence: run the declared systems over seeds and judge the papers' claims."""
    run("evidence", _evidence)


def export() -> NoReturn:
    """kdx-export run=DIR: a finished run's student as files for others, compared with it, and a model card."""
    run("export", _export)


def _views(cfg: DictConfig) -> None:
    checked = check(cfg)
    from kdx.experiment import build

    parts = build.parts(checked)
    from kdx.experiment.train import show_views
    from kdx.run.folder import RunFolder

    print(show_views(parts, RunFolder(Path(HydraConfig.get().runtime.output_dir))))


def train_job(cfg: DictConfig) -> float | None:
    """One run, or one job of a sweep; gives what the sweep optimizes."""
    checked = check(cfg)
    settings = HydraConfig.get()
    swept = settings.mode == RunMode.MULTIRUN
    if checked.baselines and not swept:
        alone = f"baseline={checked.baselines[0]}"
        raise ConfigError(f"baselines adds runs to a sweep: add -m, or give {alone} for that run alone")
    if swept:
        checked = replace(checked, baselines=[])  # the sweep's, not its jobs', which may run again by themselves
        os.environ.setdefault("KDX_SWEEP_DIR", str(settings.sweep.dir))  # ranks that Lightning starts use the same one
    from kdx.run.folder import RunFolder

    group = Path(settings.sweep.dir).name if swept else None
    folder = RunFolder(Path(settings.runtime.output_dir), group, tuple(settings.overrides.task))
    from kdx.experiment import build

    parts = build.parts(checked)  # finds contradictions before the heavy imports
    from kdx.experiment.train import train as train_run

    return train_run(parts, folder).get(checked.monitor)


def _evaluate(cfg: DictConfig) -> None:
    from kdx.evaluation.request import request, run_of

    asked = request(cfg)
    run = run_of(asked)
    if asked.again:
        from kdx.experiment.evaluate import evaluate as evaluate_run
        from kdx.run.folder import RunFolder

        assert run is not None and asked.folder is not None
        split, folder = asked.split_of(run), RunFolder(asked.folder)
        folder.write(f"evaluation-{split}.json", {"metrics": evaluate_run(run, folder, split)})
        return
    settings = HydraConfig.get()
    other = None if asked.data is None else _whole(cfg.data)
    data_name = "own" if other is None else settings.runtime.choices["data"]
    from kdx.evaluation.session import evaluate as evaluate_any

    evaluate_any(asked, run, other, data_name, settings.overrides.task)


def _whole(data: DictConfig) -> RunConfig:
    """A checked config with these data, whatever else it holds."""
    whole = OmegaConf.to_container(hydra.compose("train", ["experiment=none"]))
    assert isinstance(whole, dict)
    return check(OmegaConf.create({**whole, "data": OmegaConf.to_container(data)}))


def _prepare(cfg: DictConfig) -> None:
    if OmegaConf.is_missing(cfg, "to"):
        raise ConfigError("'to' has no value: give to=FOLDER")
    if "://" in str(cfg.to):
        raise ConfigError(f"to={cfg.to}: shards are written to a folder: give to=FOLDER, then copy it there")
    data = _whole(cfg.data).data
    from kdx.data.shard_writer import write_dataset
    from kdx.data.splits import carve
    from kdx.experiment import build

    source, to = build.make(data.source, "data.source"), Path(str(cfg.to)).expanduser().resolve()
    try:
        source.check()
        splits = carve(
            source.splits(), val=data.val_share, test=data.test_share, train_size=data.train_size, seed=data.split_seed
        )
        write_dataset(source, splits, to, print, skip_bad=data.on_bad_image == "skip")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    crop = HydraConfig.get().runtime.choices["crop@data.eval_crop"]
    print(f"kdx-train data=shards data.root={to} crop@data.eval_crop={crop}")


def _export(cfg: DictConfig) -> None:
    from kdx.export.request import requested

    values: Any = OmegaConf.to_container(cfg)
    request = requested(values)
    from kdx.export.folder import export as write

    print(write(request))


def _evidence(cfg: DictConfig) -> None:
    from kdx.evidence.declaration import declare

    declared = declare(cfg)
    from kdx.evidence.gather import gather

    if not gather(declared, _compose):
        sys.exit(FAILED)


def _compose(overrides: list[str]) -> DictConfig:
    """The config of `kdx-train OVERRIDES`; ConfigError where Hydra objects."""
    try:
        return hydra.compose("train", overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from None
    except AssertionError as error:
        raise ConfigError(NONE if "Unexpected type" in str(error) else repr(error)) from None


def run(config_name: str, task: Callable[[DictConfig], Any]) -> NoReturn:
    """Run a Hydra app and leave with 0, with 2 after a mistake in the configuration, with 1 after a failure while running.

    Mistakes and failures are told in a sentence, with a traceback only under HYDRA_FULL_ERROR=1.
    """
    # Hydra must hand exceptions on instead of printing them, which is what this variable makes it do; the ranks that
    # Lightning starts inherit it, so what the user wanted travels in another.
    os.environ.setdefault("KDX_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: torch, imported later, renders large batches faster
    app = hydra.main(**of_main(), config_path=str(conf_dir()), config_name=config_name)(task)
    try:
        app()
    except KeyboardInterrupt:
        print("kdx: interrupted", file=sys.stderr)
        sys.exit(130)
    except SystemExit as error:  # Lightning leaves with 0 after SIGTERM, which a scheduler would take for success
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning saved last.ckpt and left with 1
            print(f"kdx: interrupted; to go on: {AGAIN}", file=sys.stderr)
            _tell_of_sweep()
            sys.exit(130)
        sys.exit(143 if type(error).__name__ == "SIGTERMException" else error.code)
    except Exception as error:
        status = tell(error)
        _tell_of_sweep()
        sys.exit(status)
    sys.exit(0)


def _tell_of_sweep() -> None:
    """A sweep that did not come to its end has no comparison; what there is can be seen."""
    sweep = os.environ.get("KDX_SWEEP_DIR")  # set when its first job starts
    if sweep is not None and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"kdx: the sweep's runs so far: kdx-report {sweep}", file=sys.stderr)


def tell(error: Exception) -> int:
    """Say in a sentence what went wrong; gives the exit status, 2 for a mistake in the configuration, else 1."""
    if os.environ.get("KDX_FULL_ERROR") == "1":
        traceback.print_exception(error)
    text, status = f"{type(error).__name__}: {error}", FAILED
    if isinstance(error, (HydraException, OmegaConfBaseException, ConfigError, YAMLError)):
        text, status = explain(error), MISUSED
    elif isinstance(error, AssertionError) and "Unexpected type" in str(error):  # what OmegaConf says of it
        text, status = NONE, MISUSED
    print(f"kdx: {text}", file=sys.stderr)
    return status


def explain(error: BaseException) -> str:
    """A sentence, with a suggestion, for what Hydra, OmegaConf or kdx found wrong."""
    if isinstance(error, ConfigError):
        return str(error)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return explain_omegaconf(cause)
    if isinstance(error, OmegaConfBaseException):
        return explain_omegaconf(error)
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if lines and "Could not override '" in lines[0] and "@teacher." in lines[0]:
        part = lines[0].split("'")[1]
        return (
            f"the experiment sets {part}, which the teacher you chose does not have: choose teacher=online, or an experiment "
            "without that teacher, such as its supervised baseline"
        )
    options = [line for line in lines[1:] if "=" not in line and ":" not in line]
    if lines and "Could not load '" in lines[0]:
        group, _, option = lines[0].split("Could not load '")[1].split("'")[0].rpartition("/")
        options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        return f"there is no '{option}' in '{group}'.{nearest(option, options)} There are: {', '.join(options)}."
    if lines and "Could not find '" in lines[0]:
        wanted = lines[0].split("Could not find '")[1].split("'")[0]
        group, _, option = wanted.rpartition("/")
        return f"there is no '{option}' in '{group}'.{nearest(option, options)} There are: {', '.join(options)}."
    return " ".join(lines[:3])


if __name__ == "__main__":
    train()
