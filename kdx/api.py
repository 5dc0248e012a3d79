"""The Python API: the commands as functions that neither exit the process nor change global logging."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from kdx.config import plugins
from kdx.config.check import check, check_plain, conf_dir, load
from kdx.config.errors import ConfigError
from kdx.config.explain import explain, is_mistake
from kdx.config.overrides import checked_overrides, without_trust
from kdx.config.schema import RunConfig, to_plain
from kdx.run.folder import RunFolder
from kdx.run.masking import mask_record

if TYPE_CHECKING:
    from kdx.evaluation.predictor import Predictor

LOGGERS = ("kdx", "pytorch_lightning", "lightning_fabric")


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder.

    Attributes:
        path: The run's folder.
    """

    path: Path

    @cached_property
    def config(self) -> RunConfig:
        """The checked config of the run."""
        return load(self.path / "config.yaml")

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The final metrics by flat name: `test/student/accuracy` is a fraction, NLL, entropy and KL are in nats."""
        metrics: dict[str, float] = RunFolder(self.path).read("metrics.json")["metrics"]
        return metrics

    @property
    def baselines(self) -> Mapping[str, Run]:
        """The equal-budget baselines that were trained with the run, by name."""
        folder = RunFolder(self.path).baselines
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        return {path.name: Run(path) for path in paths if (path / "metrics.json").is_file()}

    def curves(self) -> Any:
        """Return the curves of metrics.csv, one row per logged step.

        Returns:
            A DataFrame if pandas is installed, else a mapping from column to array [rows], with NaN for missing values.
        """
        try:
            import pandas as pd  # type: ignore[import-untyped]  # optional, and without stubs here
        except ImportError:
            return RunFolder(self.path).columns()
        return pd.read_csv(self.path / "metrics.csv")

    def student(self) -> Predictor:
        """Return the selected student as a module: images [B,C,H,W] of any size, uint8 or floats in [0,1], to logits [B,K].

        The module crops, resizes and normalizes the images as the run did on val and test.
        """
        from kdx.evaluation.predictor import student_of

        return student_of(self.config, RunFolder(self.path))

    def teacher(self) -> Predictor:
        """Return the teacher as a module like `student`, calibrated as in the run. ValueError if the run has no teacher."""
        from kdx.evaluation.predictor import teacher_of

        return teacher_of(self.config, RunFolder(self.path))


def compose(*overrides: str, config_dir: str | Path | None = None) -> RunConfig:
    """Compose and check a config, as `kdx-train OVERRIDES` does.

    Args:
        overrides: arguments of the command line: "experiment=cqkd_digits", "losses=[kl,ce]", "trainer.max_epochs=2".
        config_dir: a folder with your own options, as `--config-dir`; modules in it and in the current folder can be imported.

    Returns:
        The frozen config of the run. `dataclasses.replace` changes a value.

    Raises:
        ValueError: names the key, the mistake and the remedy.
    """
    return check(_without_hydra(_composed("train", overrides, config_dir)))


def train(
    *config: str | RunConfig,
    folder: str | Path | None = None,
    config_dir: str | Path | None = None,
    quiet: bool = False,
) -> Run:
    """Train a student (first its teacher, if its weights are not stored), select on val, test once.

    Args:
        config: overrides as for `compose`, or one config from it.
        folder: the run's folder; by default OUTPUTS/NAME/TIME, as for `kdx-train`.
        config_dir: as for `compose`.
        quiet: whether to omit messages on the progress and the table at the end.

    Returns:
        The finished run.

    Raises:
        ValueError: if the config cannot run, or does not fit the data, the networks or the weights.
        KeyboardInterrupt: after the last checkpoint was written.
    """
    configs = [item for item in config if isinstance(item, RunConfig)]
    overrides: tuple[Any, ...] = tuple(item for item in config if not isinstance(item, RunConfig))
    if configs and (len(configs) > 1 or overrides):
        raise ConfigError("Expected overrides or one config, got both; pass the overrides to kdx.compose")
    checked = check_plain(to_plain(configs[0])) if configs else compose(*overrides, config_dir=config_dir)
    from kdx.experiment import build
    from kdx.experiment.with_baselines import train_with_baselines

    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    path = Path(folder) if folder is not None else Path(checked.outputs) / checked.name / name
    with _caller_state_kept(), _messages_shown(not quiet):
        train_with_baselines(build.parts(checked, probed=True), RunFolder(path, overrides=overrides), quiet)
    return Run(path)


def evaluate(run: Run | str | Path, *overrides: str, quiet: bool = False) -> Mapping[str, float]:
    """Evaluate a finished run again, as `kdx-evaluate run=RUN OVERRIDES` does.

    Args:
        run: the run or its folder.
        overrides: "split=val", "resolution=[8,4]", "shift=blur", "data=imagefolder", "data.root=FOLDER", ...
        quiet: whether to omit the table.

    Returns:
        Metrics by flat name, such as `test/student/accuracy`; under a shift `blur_3/test/student/accuracy`.

    Raises:
        ValueError: names the key, the mistake and the remedy.
    """
    path = run.path if isinstance(run, Run) else Path(run)
    composed = _composed("evaluate", [f"run={_quoted(path)}", *overrides])
    from kdx.evaluation.request import request, run_of

    choices = composed.hydra.runtime.choices
    plain: Any = OmegaConf.to_container(_without_hydra(composed), resolve=True)
    requested = request(plain)
    config = run_of(requested)
    with _caller_state_kept():
        if requested.again:
            from kdx.experiment.evaluate import evaluate as evaluate_again

            split = requested.split_of(config)
            assert config is not None and split != "all"
            return evaluate_again(config, RunFolder(path), split, quiet)
        from kdx.evaluation.session import evaluate as evaluate_any

        other = (
            None if requested.data is None else check_plain({**to_plain(compose("experiment=none")), "data": requested.data})
        )
        file = evaluate_any(requested, config, other, "own" if other is None else choices["data"], overrides)
    content = RunFolder(file.parent).read(file.name)
    metrics: dict[str, float] = dict(content["clean"])
    for row in content["shift"]:
        metrics |= {f"{row['corruption']}_{row['severity']}/{name}": value for name, value in row["metrics"].items()}
    return metrics


def open_run(path: str | Path, trust: Sequence[str] = ()) -> Run:
    """Open the folder of a finished run. ValueError if the folder is not one.

    `trust`: your own modules that the run's config may name, such as ["my_losses"].
    """
    plugins.trust(trust)
    folder = Path(path)
    for name in ("config.yaml", "metrics.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} has no {name}; expected the folder of a finished run, such as outputs/NAME/TIME")
    return Run(folder)


def _composed(name: str, overrides: tuple[str, ...] | list[str], config_dir: str | Path | None = None) -> DictConfig:
    """Return the config `name` with its `hydra` node. The state of a Hydra app that calls this is kept."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    folders = [Path(config_dir).absolute()] if config_dir is not None else []
    trust, given = without_trust(checked_overrides(overrides))
    plugins.trust(trust)
    plugins.add_folders(folders)
    for folder in folders:
        plugins.check_run_config(folder)
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra.compose(name, [*given, *search], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError) as error:
        if not is_mistake(error):
            raise
        message = explain(error, given, folders)
        raise ConfigError(message.replace("add -m for one run per value", "call kdx.train once per value")) from None


def _without_hydra(composed: DictConfig) -> DictConfig:
    from omegaconf import open_dict

    with open_dict(composed):
        del composed["hydra"]
    return composed


def _quoted(path: Path) -> str:
    """Return a path quoted for Hydra's override grammar."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _caller_state_kept() -> Iterator[None]:
    """Log without secrets; restore the caller's log levels afterwards; raise KeyboardInterrupt if Lightning exits for one."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    logging.getLogger("kdx").addFilter(mask_record)
    try:
        yield
    except SystemExit as exit_request:  # Lightning saves a checkpoint and exits
        if isinstance(exit_request.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise RuntimeError(f"Training was terminated: {exit_request!r}") from exit_request
    finally:
        logging.getLogger("kdx").removeFilter(mask_record)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _messages_shown(shown: bool) -> Iterator[None]:
    """Print kdx's messages to stderr meanwhile, unless the caller has configured logging."""
    log = logging.getLogger("kdx")
    if not shown or log.hasHandlers():
        yield
        return
    handler = logging.StreamHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
