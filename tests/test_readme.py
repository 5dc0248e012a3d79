"""What the README tells people to type works, and what it says of the config is true."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from fake import fake_run

from kdx.config.check import conf_dir

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def lines(pattern: str) -> list[str]:
    """The commands in the README that match."""
    return [line for block in blocks("bash") for line in block.strip().splitlines() if re.search(pattern, line)]


COMMANDS = lines("kdx-(train|views)")
OF_RUNS = [line for line in lines("kdx-(evaluate|export)") if "run=DIR" in line]  # others want data that nobody has here
REPORTS = lines("kdx-(compare|report)")


@pytest.mark.parametrize("line", COMMANDS)
def test_command_works(line: str, command: Callable[..., tuple[int, str, str]], tiny: tuple[str, ...], teachers: Path) -> None:
    name, *words = shlex.split(line.split("uv run kdx-")[1], comments=True)
    short = ["trainer.max_epochs=1", "logger=none", f"outputs={teachers}"]
    if not {"--cfg", "--help"} & set(words):
        words += short
    if "-m" in words:
        fewer = {"supervised_digits": "ctkd_digits", "0,1,2": "0,1", "range(3)": "range(2)", "1,4,10": "4"}
        for long, brief in fewer.items():
            words = [word.replace(long, brief) for word in words]
        words.append(f"hydra.sweep.dir={teachers}/readme")
    if name == "train" and not {"--cfg", "--help", "experiment=dml_digits"} & set(words):
        words.append("teacher.recipe.trainer.max_epochs=2")
    if "trainer=ddp" in words:
        words += ["--cfg", "job"]  # tests/test_ddp.py runs it
    code, _, err = command(name, *words)
    assert code == 0, err


def test_student_snippet_and_evaluate_work(train: Callable[..., Path], command: Callable[..., tuple[int, str, str]]) -> None:
    folder = train("run")
    snippet = next(block for block in blocks("python") if "create_model" in block)
    scope: dict[str, object] = {}
    exec(snippet.replace("DIR", str(folder)), scope)
    assert sum(p.numel() for p in scope["model"].parameters()) == 77754
    for line in OF_RUNS:
        text = line.split("uv run kdx-")[1].replace("DIR", str(folder)).replace("FOLDER", f"{folder}-to")
        name, *words = shlex.split(text, comments=True)
        code, _, err = command(name, *words)
        assert code == 0, err


@pytest.mark.parametrize("line", REPORTS)
def test_runs_are_compared(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        fake_run(tmp_path / "outputs" / f"a{seed}", {"seed": seed})
        fake_run(tmp_path / "outputs" / f"b{seed}", {"seed": seed, "baseline": "scratch"})
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(line.split("uv run kdx-")[1], comments=True)
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"kdx.cli.{name}").main(words)
    assert not left.value.code


def test_the_loss_of_the_example_can_be_added_from_outside(train: Callable[..., Path], tmp_path: Path) -> None:
    code = next(block for block in blocks("python") if "LogitMSE" in block)
    yaml = next(block for block in blocks("yaml") if "logit_mse" in block)
    (tmp_path / "conf" / "losses").mkdir(parents=True)
    (tmp_path / "logit_mse.py").write_text(code)
    (tmp_path / "conf" / "losses" / "logit_mse.yaml").write_text(yaml.replace("kdx.losses.logit_mse", "logit_mse"))
    searched = f"hydra.searchpath=[file://{tmp_path}/conf]"
    folder = train("run", searched, "experiment=none", "losses=[logit_mse]")
    assert "train/loss_logit_mse" in (folder / "metrics.csv").read_text()


def test_every_option_is_in_the_table() -> None:
    table = README.split("## Config groups")[1].split("## Add a loss")[0]
    skipped = {"hydra", "local", "experiment", "debug", "callbacks", "hparams_search"}
    for group in sorted(path for path in conf_dir().iterdir() if path.is_dir() and path.name not in skipped):
        for path in group.glob("*.yaml"):
            assert path.stem == "base" or path.stem in table or "cifar_resnet" in path.stem, f"{group.name}={path.stem}"
