"""What all tests share: one thread, no W&B, no network, a config composed as the command line would."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

os.environ.update(WANDB_MODE="offline", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
KEPT = "KDX_REQUIRE_BROWSER"
slurm = [name for name in os.environ if name.startswith("SLURM_")]  # inside a job Lightning would wait for its other tasks
own = [name for name in os.environ if name.startswith("KDX_") and name != KEPT]
for name in ("WANDB_API_KEY", "HYDRA_FULL_ERROR", *slurm, *own):
    os.environ.pop(name, None)

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from kdx.config.check import check, conf_dir
from kdx.config.schema import RunConfig, to_plain

torch.set_num_threads(1)

TINY = ("logger=none", "trainer=cpu", "trainer.max_epochs=2", "baselines=[]")
TINY_TEACHER = "teacher.recipe.trainer.max_epochs=2"


def composed(*overrides: str) -> DictConfig:
    """The config of `kdx-train OVERRIDES`, unchecked."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that make any digits run short."""
    return TINY


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., RunConfig]:
    """Compose and check a config whose outputs stay in the test's folder."""
    return lambda *overrides: check(composed(f"outputs={tmp_path}", *overrides))


@pytest.fixture
def plain_config(config: Callable[..., RunConfig]) -> Callable[..., Any]:
    """The same, for tests that read its leaves: an OmegaConf of the checked config as plain data."""
    return lambda *overrides: OmegaConf.create(to_plain(config(*overrides)))


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder in which trained teachers are kept for the whole session."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run a kdx command in this process: (exit status, stdout, stderr).

    What takes long and is not looked at is short: latency is measured briefly, diagrams are blank (tests/report draws them),
    and Hydra does not compose the config once more to look up `hydra.mode`, which only its words could set.
    """
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra
    from matplotlib.figure import Figure

    from kdx.costs import latency
    from kdx.report import reliability

    monkeypatch.setattr(latency, "BUDGET", 0.02)  # seconds
    monkeypatch.setattr(reliability, "figure", lambda content: Figure((1, 1)))
    monkeypatch.setattr(Hydra, "get_mode", lambda self, config_name, overrides: None)

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [f"kdx-{name}", *arguments])
        for variable in ("KDX_SWEEP_DIR", "KDX_FULL_ERROR", "HYDRA_FULL_ERROR", "KDX_PLUGIN_FOLDERS", "KDX_TRUST"):
            monkeypatch.setenv(variable, "")  # so that what the command sets is undone
            monkeypatch.delenv(variable)
        capfd.readouterr()
        code: Any = 0
        try:
            importlib.import_module(f"kdx.cli.{name}").main()
        except SystemExit as exit:
            code = exit.code
        out, err = capfd.readouterr()
        return int(code or 0), out, err

    monkeypatch.setenv("KDX_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)
    yield run
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in root.handlers[:]:
        if not type(handler).__module__.startswith("_pytest."):  # Hydra's, which write where this test looked
            root.removeHandler(handler)
            handler.close()


@contextmanager
def signal_at_step(step: int, number: signal.Signals) -> Iterator[None]:
    """Runs that train in this process receive the signal in the middle of that step."""
    from kdx.training.module import DistillationModule

    original = DistillationModule.training_step

    def interrupted(self: DistillationModule, *args: Any) -> Any:
        if self.global_step == step and self.distiller.teacher is not None:  # not in the training of the teacher
            os.kill(os.getpid(), number)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillationModule, "training_step", interrupted)
        yield


@pytest.fixture
def interrupted() -> Callable[..., AbstractContextManager[None]]:
    """`interrupted(step, signal)` is `signal_at_step`."""
    return signal_at_step


@pytest.fixture
def train(command: Callable[..., tuple[int, str, str]], teachers: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train a tiny run into a folder of the test; the session's runs share their teachers."""

    def run(name: str, *overrides: str) -> Path:
        folder = tmp_path / name
        other = {"experiment=supervised_digits", "experiment=dml_digits", "teacher=ensemble"}  # than one teacher
        taught = [] if other & set(overrides) else [TINY_TEACHER]
        code, _, err = command("train", *TINY, *taught, f"outputs={teachers}", f"hydra.run.dir={folder}", *overrides)
        assert code == 0, err
        return folder

    return run
