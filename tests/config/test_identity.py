"""The identity of a job: what it computes, not where and how it runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kdx.config.identity import job_identity
from kdx.config.influence import difference
from kdx.config.schema import RunConfig, to_plain

Config = Callable[..., RunConfig]


def identity(config: RunConfig) -> str:
    return job_identity(to_plain(config))


@pytest.mark.parametrize(
    "override",
    ["name=x", "tags=[a]", "logger=none", "outputs=elsewhere", "trainer.devices=2", "data.num_workers=3", "on_conflict=fork",
     "sweep=x", "data.loader=resident", "trainer.log_every_n_steps=7", "baselines=[]", "preflight=off", "ckpt_path=null",
     "callbacks.last.seconds=3"],
)  # fmt: skip
def test_the_place_and_the_logs_do_not_count(config: Config, override: str) -> None:
    assert identity(config(override)) == identity(config())


@pytest.mark.parametrize(
    "override",
    ["seed=1", "optimizer.lr=0.5", "trainer.max_epochs=3", "temperature.value=3", "data.batch_size=3", "teacher.recipe.seed=9",
     "selection=last", "test=false", "resolution.student=6"],
)  # fmt: skip
def test_what_changes_numbers_counts(config: Config, override: str) -> None:
    assert identity(config(override)) != identity(config())


def test_a_difference_has_three_lines_at_most(config: Config) -> None:
    one, other = to_plain(config()), to_plain(config("seed=1", "optimizer.lr=0.5", "data.batch_size=3", "trainer.max_epochs=3"))
    assert difference(one, to_plain(config("name=x"))) == []
    assert difference(one, to_plain(config("seed=1"))) == ["seed: 0 -> 1"]
    lines = difference(one, other)
    assert len(lines) == 3 and lines[-1].endswith(", and 1 more")
