"""Sweeps: their baselines, and what stands at their end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from kdx.cli.sweep import baseline_jobs
from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError

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
    code, out, err = command("train", "-m", "experiment=cqkd_digits", *grid, *short)
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


def test_a_sweep_with_a_job_that_fails_says_how_to_see_the_others(
    command: Command, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    jobs = ["experiment=supervised_digits", "optimizer.lr=1e-3,1e30", "trainer.log_every_n_steps=1", *tiny]
    code, _, err = command("train", "-m", *jobs, f"hydra.sweep.dir={tmp_path}/sweep")
    assert code == 1 and "not finite" in err and f"kdx-report {tmp_path}/sweep" in err
    assert len(list(tmp_path.glob("sweep/*/metrics.json"))) == 1
