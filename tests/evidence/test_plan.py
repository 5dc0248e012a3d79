"""A run's fingerprint is that of what determines its numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kdx.config.schema import RunConfig, to_plain
from kdx.evidence.declaration import Declaration
from kdx.evidence.plan import plan, run_key
from kdx.evidence.planned_run import PlannedRun

Planned = Callable[..., list[PlannedRun]]


@pytest.fixture
def planned(small: Callable[..., Declaration], composer: Callable[..., RunConfig], tmp_path: Path) -> Planned:
    """The runs of the small declaration, changed by dotted keys."""
    return lambda **changes: list(plan(small(**changes), composer, tmp_path / changes.get("outputs", "outputs")))


def test_there_is_a_run_per_system_and_seed_and_whole_seeds_come_first(planned: Planned) -> None:
    runs = planned()
    assert [(run.system, run.seed) for run in runs] == [(s, seed) for seed in (0, 1) for s in ("labels", "warm", "hot")]
    assert len({run.key for run in runs}) == 6
    assert runs[4].config.seed == 1 and runs[4].config.temperature["value"] == 2
    assert runs[4].overrides[-1] == "seed=1"


def test_the_key_ignores_names_and_places_only(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [run.key for run in planned()]
    assert keys == [run.key for run in planned(outputs="elsewhere", name="other", title="Other")]
    assert not set(keys) & {run.key for run in planned(overrides=["logger=none", "trainer.max_epochs=4"])}
    changed = [run.key for run in planned(families__one__systems__hot=["experiment=cqkd_digits", "temperature.value=7"])]
    assert [a == b for a, b in zip(keys, changed, strict=True)] == [True, True, False] * 2
    run = planned()[0]
    monkeypatch.setattr("kdx.evidence.plan.VERSION", "99")
    assert run_key(to_plain(run.config)) != run.key


def test_systems_that_are_the_same_share_their_runs(planned: Planned) -> None:
    runs = planned(families__one__systems__hot=["experiment=cqkd_digits", "temperature.value=2"])
    assert runs[1].key == runs[2].key != runs[0].key
