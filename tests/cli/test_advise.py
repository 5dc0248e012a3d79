"""kdx-advise: its trials are a sweep that goes on, and it ends with a verdict, a cost and commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdx.cli.advise import Request, _lengths
from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig

Command = Callable[..., tuple[int, str, str]]
Config = Callable[..., RunConfig]
SHORT = ("trainer.max_epochs=20", "teacher.recipe.trainer.max_epochs=3", "preflight=off", "logger=none", "trainer=cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teacher=none", "losses=[ce]", "calibration=none", "temperature=none"], "needs a teacher"),
        (["seed=3"], "use seeds=N"),
        (["method=kd"], "use methods=[NAME,...]"),
        (["baselines=[scratch]"], "remove baselines="),
        (["methods=[kdd]"], "Did you mean 'kd'?"),
        (["share=0"], "share"),
        (["share=2"], "share"),
        (["optimizer.lrr=1"], "Did you mean"),
    ],
)
def test_what_cannot_be_advised_on_is_refused_with_the_remedy(command: Command, words: list[str], message: str) -> None:
    code, _, err = command("advise", *words)
    assert code == 2 and message in err, err


def test_a_trial_has_its_share_of_epochs_or_steps(config: Config) -> None:
    assert _lengths(config("trainer.max_epochs=150"), 0.1) == (10.0, ["trainer.max_epochs=15"])
    assert _lengths(config("trainer.max_epochs=4"), 0.1) == (4.0, ["trainer.max_epochs=1"])
    assert _lengths(config("trainer.max_steps=1000"), 0.25) == (4.0, ["trainer.max_steps=250"])


def test_a_request_is_that_of_the_yaml(command: Command) -> None:
    code, out, err = command("advise", "data=digits300", "--cfg", "job")
    assert code == 0, err
    assert "method" in out and Request(0.1, 3, ["kd", "kd_raw", "funmatch"]).seeds == 3


@pytest.mark.long
def test_trials_end_with_a_verdict_and_the_same_command_tells_it_again(command: Command, tmp_path: Path) -> None:
    words = ("advise", *SHORT, "methods=[kd]", "seeds=2", f"outputs={tmp_path}")
    code, out, err = command(*words)
    assert code == 0, err
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert sum(1 for one in folder.iterdir() if (one / "metrics.json").is_file()) == 4
    assert "Accuracy: " in out and "NLL: " in out and "n = 2" in out and "To go on: kdx-train" in out
    assert "10% of the training" in out and "in full takes about" in out
    assert "Accuracy: " in (folder / "advice.txt").read_text() and (folder / "report.html").is_file()
    code, again, err = command(*words)
    assert code == 0 and "Skipped" in err + again and "Accuracy: " in again


def test_the_length_of_a_run_must_be_known() -> None:
    endless: Any = SimpleNamespace(trainer={"max_epochs": -1, "max_time": "00:01:00:00"})
    with pytest.raises(ConfigError, match=r"trainer.max_epochs=N"):
        _lengths(endless, 0.1)
