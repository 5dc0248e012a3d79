"""Folders of runs and sweeps: the same command, on any rank and after a requeue, finds the same one."""

from __future__ import annotations

import re

import pytest

from kdx.config.run_names import run_id, sweep_id

CLUSTER = ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "TORCHELASTIC_RUN_ID", "WORLD_SIZE",
           "MASTER_ADDR", "MASTER_PORT")  # fmt: skip
TIME = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}"


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, TIME),
        ({"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "train"}, r"slurm-17-\w{6}"),
        ({"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "bash"}, TIME),
        ({"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}, r"slurm-17_3-\w{6}"),
        ({"TORCHELASTIC_RUN_ID": "abc", "WORLD_SIZE": "2"}, r"torchrun-abc-\w{6}"),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, r"torchrun-\d+-\d+-\w{6}"),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "kdx-master-0", "MASTER_PORT": "23456"}, r"job-kdx-master-0-23456-\w{6}"),
        ({"WORLD_SIZE": "1", "MASTER_ADDR": "kdx-master-0"}, TIME),
    ],
)
def test_a_run_in_a_cluster_is_named_after_its_job(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for variable in CLUSTER:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    found = run_id(["seed=1"])
    assert re.fullmatch(name, found), found
    assert name == TIME or run_id(["seed=1"]) == found != run_id(["seed=2"])


def test_a_sweep_is_named_after_what_it_sweeps_over() -> None:
    words = ["experiment=ctkd_digits", "seed=0,1"]
    name = sweep_id("auto", words)
    assert re.fullmatch(r"ctkd_digits-[0-9a-f]{8}", name)
    for more in ("outputs=x", "launcher=gpus", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "logger=none",
                 "data.num_workers=4", "max_attempts=9", "+trainer.devices=2", "logger.wandb.project=x"):  # fmt: skip
        assert sweep_id("auto", [*words, more]) == name, more
    for more in ("seed=0,1,2", "name=x", "baselines=[scratch]", "optimizer=adam"):
        assert sweep_id("auto", [*words, more]) != name, more
    assert sweep_id("mine", words) == "mine"
    assert re.fullmatch(TIME, sweep_id("new", words))
    assert re.fullmatch(TIME, sweep_id("auto", [*words, "hydra/sweeper=optuna"]))
