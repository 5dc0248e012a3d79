"""Learning-rate schedules equal the ones they are named after, at every step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from kdx.training.schedules import ConstantLr, CosineLr, LrSchedule, MultiStepLr, OneCycleLr


def torchs(schedule: type[lr_scheduler.LRScheduler], steps: int, **kwargs: Any) -> list[float]:
    """The lr of torch's scheduler at each step, from a base lr of 1."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = schedule(optimizer, **kwargs)
    values = []
    for _ in range(steps):
        values.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if len(values) < steps:
            scheduler.step()
    return values


def factors(schedule: LrSchedule, steps: int, steps_per_epoch: float = 10) -> list[float]:
    return [schedule(step, steps, steps_per_epoch) for step in range(steps)]


@pytest.mark.parametrize(("step", "value"), [(0, 0), (750, 0.5), (1500, 1), (10750, 0.5), (20000, 0)])
def test_cosine_is_big_visions(step: int, value: float) -> None:
    assert CosineLr(warmup_steps=1500)(step, 20000, 100) == pytest.approx(value, abs=1e-6)


def test_cosine_ends_at_its_final_share() -> None:
    schedule = CosineLr(final=0.2)
    assert [schedule(step, 100, 10) for step in (0, 50, 100)] == pytest.approx([1, 0.6, 0.2])


@pytest.mark.parametrize(("milestones", "gamma"), [((150, 180, 210), 0.1), ((1, 2), 0.5), ((), 0.1)])
def test_multistep_equals_torchs_in_every_step_of_an_epoch(milestones: tuple[int, ...], gamma: float) -> None:
    expected = torchs(lr_scheduler.MultiStepLR, 240, milestones=list(milestones), gamma=gamma)
    ours = factors(MultiStepLr(milestones, gamma), 720, steps_per_epoch=3)
    assert ours == pytest.approx([value for value in expected for _ in range(3)], rel=1e-12)


@pytest.mark.parametrize("steps", [37, 200, 1000])
@pytest.mark.parametrize("rise", [0.1, 0.3])
@pytest.mark.parametrize(("div", "final_div"), [(25.0, 1e4), (10.0, 100.0)])
def test_one_cycle_equals_torchs(rise: float, steps: int, div: float, final_div: float) -> None:
    expected = torchs(
        lr_scheduler.OneCycleLR,
        steps,
        max_lr=1.0,
        total_steps=steps,
        pct_start=rise,
        anneal_strategy="cos",
        cycle_momentum=False,
        div_factor=div,
        final_div_factor=final_div,
    )
    assert factors(OneCycleLr(rise, div, final_div), steps) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    "schedule",
    [ConstantLr(), CosineLr(), CosineLr(warmup_epochs=1), MultiStepLr(), *(OneCycleLr(r) for r in (0, 0.1, 0.5, 1))],
    ids=lambda s: f"{type(s).__name__} {vars(s)}",
)
@pytest.mark.parametrize("steps", [1, 2, 10, 20])
def test_every_factor_of_a_short_run_is_in_range(schedule: LrSchedule, steps: int) -> None:
    for step in range(steps + 1):  # torch asks once more after the last step
        assert 0 <= schedule(step, steps, 5.0) <= 1


@pytest.mark.parametrize(
    ("schedule", "plain"),
    [
        (ConstantLr(warmup_steps=20), ConstantLr()),
        (ConstantLr(warmup_epochs=2.0), ConstantLr()),
        (MultiStepLr((3,), warmup_epochs=2.0), MultiStepLr((3,))),
    ],
)
def test_warmup_is_linear_from_zero_and_then_gone(schedule: LrSchedule, plain: LrSchedule) -> None:
    values = factors(schedule, 60)
    assert values[:20] == pytest.approx([step / 20 for step in range(20)])
    assert values[20:] == factors(plain, 60)[20:]


def test_a_warmup_in_epochs_is_the_same_in_steps() -> None:
    assert factors(CosineLr(warmup_epochs=1.5), 100) == factors(CosineLr(warmup_steps=15), 100)


@pytest.mark.parametrize("schedule", [ConstantLr, CosineLr, MultiStepLr])
def test_a_warmup_in_steps_and_in_epochs_is_a_contradiction(schedule: type[Any]) -> None:
    with pytest.raises(ValueError, match="in steps or in epochs, not in both"):
        schedule(warmup_steps=5, warmup_epochs=1.0)


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        (ConstantLr, {"warmup_steps": -1}),
        (CosineLr, {"final": 1.5}),
        (CosineLr, {"warmup_epochs": math.nan}),
        (MultiStepLr, {"gamma": 0}),
        (MultiStepLr, {"milestones": [-1]}),
        (OneCycleLr, {"rise": 1.1}),
        (OneCycleLr, {"div": 0}),
    ],
)
def test_a_setting_out_of_range_is_a_value_error(schedule: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{schedule.__name__}: {next(iter(wrong))}"):
        schedule(**wrong)
