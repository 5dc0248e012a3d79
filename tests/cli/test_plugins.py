"""Classes of the user: found in the current folder and beside --config-dir; nothing else that a config names is built."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

from kdx.config import plugins
from kdx.config.errors import ConfigError
from kdx.config.plugins import allowed, reason_not_allowed

Command = Callable[..., tuple[int, str, str]]
CODE = """
from torch import Tensor
from kdx.losses.objective import Loss
from kdx.types import Outputs

class Absolute(Loss):
    needs_teacher = True

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, outputs: Outputs) -> Tensor:
        return (outputs.student_logits - outputs.teacher_logits).abs().pow(self.power).mean(-1)
"""


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`sys.path`, imported plug-ins and the environment are as before afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for variable in (plugins.FOLDERS, plugins.TRUST):
        monkeypatch.setenv(variable, "")  # so that what a test sets is undone
        monkeypatch.delenv(variable)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def plug_in(root: Path, module: str, beside: Path) -> Path:
    """An option losses=absolute in root/mine, whose class is in MODULE.py in the folder `beside`; gives root/mine."""
    (root / "mine" / "losses").mkdir(parents=True)
    loss = f"{{_target_: {module}.Absolute, power: 1.0}}"
    text = f"absolute:\n  _target_: kdx.losses.objective.Term\n  weight: 1.0\n  loss: {loss}\n"
    (root / "mine" / "losses" / "absolute.yaml").write_text(text)
    beside.mkdir(exist_ok=True)
    (beside / f"{module}.py").write_text(CODE)
    return root / "mine"


@pytest.mark.parametrize("place", ["current", "config dir", "parent", "search path", "dot"])
def test_a_loss_of_the_users_trains_without_pythonpath(
    command: Command, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    beside = {"current": tmp_path, "parent": elsewhere}.get(place, elsewhere / "mine")
    elsewhere.mkdir()
    mine = plug_in(elsewhere, f"my_{place.replace(' ', '_')}", beside)
    where = [f"hydra.searchpath=[file://{mine}]"] if place == "search path" else ["--config-dir", str(mine)]
    if place == "dot":
        monkeypatch.chdir(mine)
        where = ["--config-dir=."]
    short = [*tiny, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "test=false"]
    words = ["experiment=none", *where, "losses=[absolute]", "teacher.recipe.trainer.max_epochs=1"]
    if place not in ("current", "dot"):  # one run is enough to see that what is checked is built
        code, out, err = command("train", *words, "--cfg", "job")
        assert code == 0 and "power: 1.0" in out, err
        return
    code, _, err = command("train", *words, *short, f"hydra.run.dir={tmp_path}/run")
    assert code == 0, err
    assert "train/loss_absolute" in (tmp_path / "run" / "metrics.csv").read_text()


def test_arguments_of_a_plug_in_are_checked(command: Command, tmp_path: Path) -> None:
    mine = plug_in(tmp_path, "my_checked", tmp_path)
    code, _, err = command("train", f"--config-dir={mine}", "losses=[absolute]", "losses.absolute.loss.powr=2")
    assert code == 2 and "Did you mean 'power'?" in err


def test_a_missing_module_names_the_remedy(command: Command, tmp_path: Path) -> None:
    mine = plug_in(tmp_path, "my_absent", tmp_path / "far")
    code, _, err = command("train", f"--config-dir={mine}", "losses=[absolute]")
    assert code == 2 and "losses.absolute.loss._target_=my_absent.Absolute: No module 'my_absent'" in err
    assert "put my_absent.py into the current folder or beside --config-dir, or check the spelling" in err


def test_processes_started_from_a_run_find_the_modules(command: Command, tmp_path: Path) -> None:
    mine = plug_in(tmp_path / "elsewhere", "my_inherited", tmp_path / "elsewhere" / "mine")
    assert command("train", f"--config-dir={mine}", "losses=[absolute]", "--cfg", "job")[0] == 0
    code = "from kdx.config.plugins import allowed; assert allowed('my_inherited.Absolute'); import my_inherited"
    subprocess.run([sys.executable, "-c", code], cwd="/", env=os.environ, check=True, timeout=60)


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "posix.system", "subprocess.Popen", "builtins.eval", "importlib.import_module", "hydra.utils.get_object",
        "torch.hub.load", "torch.load", "torch.utils.cpp_extension.load", "numpy.load", "pickle.loads", "sys.exit", "eval", "",
        "kdx.evidence.workers.BaseProcess", "kdx.run.provenance.subprocess", "timm.data.create_dataset",
    ],
)  # fmt: skip
def test_what_is_not_the_users_is_refused(config: Callable[..., DictConfig], target: str, tmp_path: Path) -> None:
    assert not allowed(target)
    with pytest.raises(ConfigError, match=r"callbacks\.best\._target_"):
        config(f"callbacks.best={{_target_: '{target}'}}")


def test_what_kdx_uses_is_allowed() -> None:
    for target in ("torch.optim.AdamW", "timm.optim.Muon", "pytorch_lightning.Trainer", "kdx.losses.kl.KL", "torch.nn.Linear"):
        assert reason_not_allowed(target) is None
    assert not allowed("kdxtra.X") and not allowed("torch.optimal.X")


def test_an_installed_package_is_allowed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "add trust=[sklearn]" in str(reason_not_allowed("sklearn.svm.SVC"))
    assert "trust=" not in str(reason_not_allowed("os.system"))
    plugins.trust(["numpy", "sklearn.svm"])
    assert allowed("sklearn.svm.SVC") and allowed("numpy.array") and not allowed("sklearn.linear_model.Ridge")


def test_trust_is_a_word_of_the_commands_and_inherited(command: Command, tmp_path: Path) -> None:
    absent = ("+callbacks.x={_target_: sklearn.svm.SVC}", "--cfg", "job")
    code, _, err = command("train", *absent)
    assert code == 2 and "callbacks.x._target_=sklearn.svm.SVC: A config may not name" in err
    for words in ("trust=[numpy,sklearn]", "trust=sklearn"):
        assert command("train", *absent, words)[0] == 0
    code = "from kdx.config.plugins import allowed; assert allowed('sklearn.svm.SVC')"
    subprocess.run([sys.executable, "-c", code], cwd="/", env=os.environ, check=True, timeout=60)
    code, _, err = command("train", "trust=[my-kd]")
    assert code == 2 and "Invalid module 'my-kd' in trust" in err
    (tmp_path / "mine" / "losses").mkdir(parents=True)
    (tmp_path / "mine" / "losses" / "x.yaml").write_text("# @package _global_\ntrust: [sklearn]\n")
    code, _, err = command("train", "--config-dir=mine", "losses=[kl,x]", *absent)
    assert code == 2 and "trust" in err


def test_a_package_installed_below_the_current_folder_is_not_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / ".venv" / "site-packages"
    site.mkdir(parents=True)
    (site / "my_installed.py").write_text("class X: ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    assert not allowed("my_installed.X")


def test_a_module_with_the_name_of_an_installed_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yaml.py").write_text("class X: ...\n")
    monkeypatch.chdir(tmp_path)
    assert "rename yaml.py" in str(reason_not_allowed("yaml.X"))


def test_the_folder_of_a_run_brings_no_code(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "my_trojan.py").write_text("open('executed', 'w')\n")
    (run / "config.yaml").write_text("callbacks: {best: {_target_: my_trojan.X}}\n")
    code, _, err = command("train", f"--config-dir={run}", "--config-name=rerun")
    assert code == 2 and not (tmp_path / "executed").exists()
    for text in ("hydra: {callbacks: {x: {_target_: os.system}}}\n", "# @package hydra\ncallbacks: {}\n", "'hydra': {}\n"):
        (run / "config.yaml").write_text(text)
        code, _, err = command("train", f"--config-dir={run}", "--config-name=rerun")
        assert code == 2 and "which runs never write" in err
