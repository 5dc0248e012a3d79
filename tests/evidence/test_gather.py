"""The whole job: it resumes, says what failed, judges the rest, and writes what was found."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_runs
import pytest

from kdx.config.schema import RunConfig
from kdx.evidence.declaration import Declaration
from kdx.evidence.gather import gather
from kdx.evidence.planned_run import PlannedRun
from kdx.evidence.progress import Forecast, duration

Small = Callable[..., Declaration]
Composer = Callable[..., RunConfig]


def times(outputs: Path) -> list[int]:
    """How often each run was trained."""
    return [len(path.read_text().splitlines()) for path in sorted((outputs / "evidence" / "runs").glob("*.times"))]


def test_report_says_what_the_runs_say(small: Small, composer: Composer, tmp_path: Path) -> None:
    assert gather(small(), composer, fake_runs.succeed)
    folder = tmp_path / "outputs" / "evidence" / "small"
    report = (folder / "report.md").read_text()
    assert "2 claims: 2 hold." in report and "As it should." in report and "The hotter, the better." in report
    assert "commit abc" in report and "temperature.value=8" in report and "Selection rule of the weights: last" in report
    assert {"claims.png", "one-curve.png"} <= {path.name for path in folder.iterdir()}
    assert "![one](one-curve.png)" in report
    data = json.loads((folder / "findings.json").read_text())
    first = data["claims"][0]["comparisons"][0]
    assert first["compared"] == "warm − labels" and first["mean"] == pytest.approx(0.04)
    values = list(csv.DictReader((folder / "values.csv").read_text().splitlines()))
    kept = {(row["system"], row["seed"]): float(row["value"]) for row in values if row["metric"] == "test/student/accuracy"}
    assert kept[("hot", "1")] == pytest.approx(0.67)
    assert len(list(csv.DictReader((folder / "claims.csv").read_text().splitlines()))) == 3


def test_only_what_is_missing_is_run_again(small: Small, composer: Composer, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    gather(small(), composer, fake_runs.succeed)
    assert times(outputs) == [1] * 6
    next((outputs / "evidence" / "runs").glob("*/metrics.json")).unlink()
    gather(small(name="other"), composer, fake_runs.succeed)
    assert sorted(times(outputs)) == [1, 1, 1, 1, 1, 2]
    gather(small(seeds="0-2"), composer, fake_runs.succeed)
    assert sorted(times(outputs)) == [1] * 8 + [2]


def test_a_claim_without_all_its_runs_is_not_run(small: Small, composer: Composer, tmp_path: Path) -> None:
    assert not gather(small(only=["heat_helps"], seeds="0-1"), composer, fake_runs.some_fail)
    report = (tmp_path / "outputs" / "evidence" / "small" / "report.md").read_text()
    assert "1 claim: 1 not run." in report
    assert "labels seed 1: RuntimeError: no memory" in report


def test_failures_are_tried_again(small: Small, composer: Composer) -> None:
    assert not gather(small(), composer, fake_runs.some_fail)
    assert gather(small(), composer, fake_runs.succeed)


def test_an_interrupted_job_goes_on(
    small: Small, composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kdx.evidence import gather as module

    whole = module.work

    def cut(*arguments: Any) -> Iterator[tuple[PlannedRun, str]]:
        done = whole(*arguments)
        yield next(done)
        yield next(done)
        done.close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, caplog.at_level("INFO", "kdx"):
        patch.setattr(module, "work", cut)
        with pytest.raises(KeyboardInterrupt):
            gather(small(), composer, fake_runs.succeed)
    assert "2 finished runs are kept" in caplog.text
    before = times(tmp_path / "outputs")
    assert gather(small(), composer, fake_runs.succeed)
    assert len(times(tmp_path / "outputs")) == 6 and sum(times(tmp_path / "outputs")) <= sum(before) + 4


@pytest.mark.long
def test_the_command_trains_and_judges(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    conf = tmp_path / "conf" / "evidence"
    conf.mkdir(parents=True)
    (conf / "tiny.yaml").write_text(TINY)
    arguments = ["evidence=tiny", f"hydra.searchpath=[file://{tmp_path}/conf]", "jobs=1"]
    code, out, err = command("evidence", *arguments)
    assert code == 0, err
    assert "tiny.smaller" in out and "2/2 runs" in err
    report = outputs / "evidence" / "tiny" / "report.md"
    before = report.read_text()
    assert "`test/student/nll` of slow" in before
    code, _, err = command("evidence", *arguments)
    assert code == 0 and "all 2 runs are already finished" in err
    assert report.read_text() == before
    code, _, err = command("evidence", *arguments, "only=[bigger]")
    assert code == 2 and "smaller" in err.strip().splitlines()[-1]


TINY = """# @package _global_
name: tiny
title: Tiny
seeds: [0, 1]
families:
  tiny:
    paper: A paper
    about: A setting.
    systems:
      slow: [experiment=supervised_digits, trainer.max_epochs=1, trainer.check_val_every_n_epoch=1, data.train_size=64]
    claims:
      smaller:
        sentence: After one epoch it knows little.
        tests: [{_target_: kdx.evidence.kinds.Level, systems: slow, metric: test/student/nll, above: 0.5}]
"""


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (89, "89 s"), (120, "2 min"), (3599, "1 h 00 min"), (3900, "1 h 05 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_forecast_learns_from_the_same_system_and_else_from_epochs() -> None:
    def run(system: str, epochs: int) -> PlannedRun:
        return PlannedRun("f", system, 0, (), SimpleNamespace(trainer={"max_epochs": epochs}), "", Path())

    forecast = Forecast()
    assert forecast.left([run("short", 10)], 1) is None
    forecast.learn(run("short", 10), 2.0)
    forecast.learn(run("slow", 10), 6.0)
    assert forecast.left([run("short", 10)], 1) == 2.0
    assert forecast.left([run("long", 100)], 1) == 100 * 8 / 20
    assert forecast.left([run("short", 10), run("slow", 10)], 2) == 4.0
    assert forecast.left([run("slow", 10)], 2) == 6.0  # one run cannot be split
