"""Sweeps: their baselines, and what stands at their end."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from kdx.cli import sweep_status
from kdx.cli.sweep import baseline_jobs
from kdx.cli.sweep_job import run_job
from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.run import job
from kdx.run.folder import RunFolder
from kdx.run.sweep_folder import Plan, statuses, write_plan, write_progress

Command = Callable[..., tuple[int, str, str]]


def config_of(folder: Path) -> dict:
    """The config in a run's folder."""
    return json.loads((folder / "run.json").read_text())["config"]


@pytest.mark.long
def test_a_sweep_has_each_baseline_once_per_seed_and_ends_in_a_comparison_and_a_page(
    command: Command, tmp_path: Path, teachers: Path, tiny: tuple[str, ...]
) -> None:
    grid = ["temperature.value=1,4", "seed=range(2)", "baselines=[scratch,label_smoothing]"]
    short = [*tiny, "teacher.recipe.trainer.max_epochs=2", f"outputs={teachers}", f"hydra.sweep.dir={tmp_path}/sweep"]
    code, out, err = command("train", "-m", "experiment=cqkd_digits", *short, *grid)
    assert code == 0, err
    folders = sorted(
        (path.parent for path in (tmp_path / "sweep").glob("*/metrics.json")), key=lambda p: int(p.name.split("-")[0])
    )
    configs = [config_of(folder) for folder in folders]
    assert [(c["baseline"], c["seed"]) for c in configs[4:]] == [
        ("scratch", 0), ("scratch", 1), ("label_smoothing", 0), ("label_smoothing", 1)
    ]  # fmt: skip
    assert [(c["temperature"]["value"], c["seed"]) for c in configs[:4]] == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert all(c["trainer"] == configs[0]["trainer"] and c["data"] == configs[0]["data"] for c in configs)
    assert all(c["baselines"] == [] for c in configs)  # a job of the sweep runs again by itself
    assert [folder.name for folder in folders[4:6]] == ["4-cqkd_digits-scratch", "5-cqkd_digits-scratch"]
    assert "temperature.value=4" in out and "scratch" in out and "[" in out  # the table, with intervals
    assert "± " in out and "− baseline=scratch" in out, out
    table = (tmp_path / "sweep" / "comparison.md").read_text()
    assert "temperature.value=1" in table and "baseline=scratch" in table and "weights selected: best val" in table
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "temperature.value=4" in page


@pytest.mark.parametrize(
    ("baseline", "jobs"),
    [
        ("scratch", [["network@student=cifar_resnet8", "optimizer.lr=0.001"], ["optimizer.lr=0.01"]]),
        ("fixed_t", [["losses=[kd]"], ["losses=[kl]"]]),
        ("self", [["temperature.value=1"], ["temperature.value=4"]]),
    ],
)
def test_a_baseline_keeps_of_the_grid_what_it_does_not_decide_itself(baseline: str, jobs: list[list[str]]) -> None:
    task = [
        "network@student=cifar_resnet8",
        "network@teacher.network=resnet18,resnet34",
        "teacher.recipe.seed=0",
        "losses=[kd],[kl]",
    ]
    params = {"temperature.value": "1,4", "optimizer.lr": "1e-3,1e-2"}
    hydra = {"sweeper": {"params": params}, "overrides": {"task": [*task, f"baselines=[{baseline}]", "baseline=null"]}}
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        (found,) = baseline_jobs(OmegaConf.create({"baselines": [baseline], "hydra": hydra})).values()
    assert len({tuple(job) for job in found}) == len(found) == {"scratch": 2, "fixed_t": 8, "self": 8}[baseline]
    for wanted in jobs:
        assert any(set(wanted) <= set(job) for job in found), (wanted, found)
    assert all(f"baseline={baseline}" in job and "baselines=[]" in job and "baseline=null" not in job for job in found)
    decided = {"scratch": "temperature losses teacher", "fixed_t": "temperature", "self": "teacher"}[baseline].split()
    assert not [text for job in found for text in job for key in decided if text.startswith(key) or f"@{key}" in text]


def test_baselines_of_what_is_no_grid_are_refused() -> None:
    hydra = {"sweeper": {"params": {"optimizer.lr": "interval(0.001, 0.1)"}}, "overrides": {"task": ["baselines=[scratch]"]}}
    with initialize_config_dir(str(conf_dir()), version_base="1.3"), pytest.raises(ConfigError, match="need a grid"):
        baseline_jobs(OmegaConf.create({"baselines": ["scratch"], "hydra": hydra}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["-m", "baselines=[fixed_t]", "seed=0,1"], "sweep temperature.value instead"),
        (["-m", "baselines=[scrach]", "seed=0,1"], "Did you mean 'scratch'?"),
        (["-m", "experiment=supervised_digits", "baselines=[fixed_t]", "seed=0,1"], "use baseline=scratch"),
    ],
)
def test_baselines_that_cannot_be_are_refused_before_the_first_job(
    command: Command, tmp_path: Path, overrides: list[str], message: str
) -> None:
    code, _, err = command("train", *overrides, f"hydra.sweep.dir={tmp_path}/sweep")
    assert code == 2 and message in err
    assert not list(tmp_path.rglob("run.json"))


def test_a_failed_job_stops_no_other_and_the_same_command_goes_on(
    command: Command, tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "-m",
        "experiment=supervised_digits",
        "optimizer.lr=1e30,1e-3",
        "trainer.log_every_n_steps=1",
        "max_attempts=2",
        *tiny,
    )
    code, _, err = command("train", *words)
    (sweep,) = Path("outputs/sweeps").iterdir()
    failed, done = sweep / "0-supervised_digits", sweep / "1-supervised_digits"
    assert code == 1 and "not finite" in err and "1 finished, 1 failed" in err and f"kdx-sweep status {tmp_path / sweep}" in err
    assert (sweep / "comparison.md").is_file() and (done / "metrics.json").is_file()
    first = (done / "metrics.json").read_text()
    for attempts in (2, 2):  # tried again once, as `max_attempts` allows
        code, _, err = command("train", *words)
        assert code == 1 and "Skipped 1-supervised_digits: finished" in err
        assert len(job.failures(failed)) == attempts
    assert "failed 2 times" in err and "kdx-sweep retry" in err and (done / "metrics.json").read_text() == first
    assert [status.state for status in statuses(sweep)] == ["failed", "finished"]
    with job.held(failed):
        job.forget_failures(failed)
        code, _, err = command("train", *words)
        assert code == 0 and "Skipped 0-supervised_digits: another process works on it" in err
        assert statuses(sweep)[0].state == "running"


def test_another_sweep_in_the_folder_is_refused_and_further_jobs_are_not(
    command: Command, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    words = ("-m", "experiment=supervised_digits", *tiny, f"outputs={tmp_path}", "sweep=mine")
    code, _, err = command("train", *words, "seed=0")
    assert code == 0, err
    code, _, err = command("train", *words, "seed=1,0")
    assert code == 2 and "holds another sweep" in err and "0-supervised_digits: seed=0 -> seed=1" in err
    code, _, err = command("train", *words, "seed=0,1", "data.num_workers=0")
    assert code == 0 and "Skipped 0-supervised_digits: finished" in err
    about = tmp_path / "sweeps" / "mine" / "1-supervised_digits" / "run.json"
    about.write_text(about.read_text().replace('"identity": "', '"identity": "x'))  # as if a YAML file had changed since
    code, _, err = command("train", *words, "seed=0,1")
    assert code == 1 and "holds another run" in err and "1 finished, 1 failed" in err


def test_the_status_of_a_sweep_is_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    jobs = {f"{number}-run": (f"seed={number}", "hydra.x=1") for number in range(4)}
    write_plan(tmp_path, Plan(("kdx-train", "-m", "logger.wandb.api_key=secret"), str(tmp_path), jobs, 3))
    for name, files in (("1-run", ["run.json"]), ("2-run", ["run.json", "metrics.json"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text('{"metrics": {"m": 0.5}, "selection": {"monitor": "m"}}')
    job.fail(tmp_path / "0-run", ValueError("it went wrong"))
    write_progress(tmp_path / "1-run", "3/60", 300.0, 0.25)
    with job.held(tmp_path / "1-run"), job.attempt(tmp_path / "1-run"):
        sweep_status.status(tmp_path)
    out = " ".join(capsys.readouterr().out.split())
    whole = (
        "1 of 4 jobs finished, 1 running, 1 failed, 1 pending; about 10 min left"  # 5 min, and another 5 for that which waits
    )
    for text in (whole, "it went wrong", "3/60", "0.2500", "0.5000", "seed=3"):
        assert text in out, out
    assert "hydra.x" not in out and "secret" not in (tmp_path / "sweep.json").read_text()


def test_a_canceled_sweep_stops_its_jobs_and_starts_no_others(
    config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_plan(tmp_path, Plan(("kdx-train",), str(tmp_path), {"0-run": ()}, 3))
    place = f"Path({str(tmp_path)!r}, '0-run')"
    hold = f"with job.held({place}), job.attempt({place}): time.sleep(600)"
    code = f"import time; from pathlib import Path; from kdx.run import job\n{hold}"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not job.is_held(tmp_path / "0-run") and process.poll() is None:
        time.sleep(0.05)
    while not job.attempts(tmp_path / "0-run"):
        time.sleep(0.05)
    sweep_status.cancel(tmp_path)
    assert process.wait() == -signal.SIGTERM and f"process {process.pid}" in capsys.readouterr().out
    run = config("experiment=supervised_digits")
    assert math.isnan(run_job(run, RunFolder(tmp_path / "1-run"), lambda *_: pytest.fail("it was started")))


def test_retry_gives_the_command_again_in_its_folder_and_counts_no_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweeps" / "mine"
    write_plan(sweep, Plan(("kdx-train", "-m", "seed=0,1"), str(tmp_path), {"0-run": (), "1-run": ()}, 3))
    (sweep / "canceled").touch()
    job.fail(sweep / "0-run", ValueError("it went wrong"))
    given: list[tuple[list[str], str]] = []

    def run(words: list[str], cwd: str, check: bool) -> subprocess.CompletedProcess[str]:
        given.append((words[1:], cwd))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(sweep_status.subprocess, "run", run)
    with pytest.raises(SystemExit) as left:
        sweep_status.retry(sweep)
    assert left.value.code == 0 and given == [(["-m", "seed=0,1", "sweep=mine"], str(tmp_path))]
    assert not job.failures(sweep / "0-run") and not (sweep / "canceled").exists()


def test_a_value_that_cannot_be_is_said_before_the_first_job(command: Command, tmp_path: Path) -> None:
    code, _, err = command("train", "-m", "temperature.value=1,4,-1", "seed=0,1", f"outputs={tmp_path}", "logger=none")
    assert code == 2 and "temperature.value=-1: Input should be greater than 0" in err
    assert not list(tmp_path.rglob("run.json"))


def test_a_job_whose_config_is_invalid_fails_alone(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    from kdx.cli.sweep_job import checked

    assert checked(OmegaConf.create({"seed": -1}), tmp_path / "0-run") is None
    assert len(job.failures(tmp_path / "0-run")) == 1
