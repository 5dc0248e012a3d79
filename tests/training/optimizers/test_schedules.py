"""Learning-rate schedules equal the ones they are named after, at every step."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from kdx.training.optimizers.groups import optimizer_and_schedule
from kdx.training.optimizers.schedules import ConstantLr, CosineLr, LrSchedule, MultiStepLr, OneCycleLr, PolynomialLr


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


@pytest.mark.parametrize("steps", [37, 200])
@pytest.mark.parametrize("rise", [0.1, 0.3])
@pytest.mark.parametrize(
    ("make", "read"),
    [
        (lambda p: torch.optim.AdamW(p, lr=1.0, betas=(0.9, 0.98)), lambda group: group["betas"]),
        (lambda p: SGD(p, lr=1.0, momentum=0.9), lambda group: (group["momentum"], 0.98)),
    ],
    ids=["betas", "momentum"],
)
def test_one_cycle_turns_the_momentum_as_torchs_does(make: Any, read: Any, rise: float, steps: int) -> None:
    optimizer = make([torch.zeros(1, requires_grad=True)])
    torchs_own = lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, pct_start=rise)
    made = optimizer_and_schedule(
        [{"params": [torch.zeros(1, requires_grad=True)]}], make, OneCycleLr(rise, cycle_momentum=True), steps, 10
    )
    for step in range(steps):
        for each in (optimizer, made["optimizer"]):
            each.step()
        (group,) = made["optimizer"].param_groups
        assert read(group) == pytest.approx(read(optimizer.param_groups[0]), abs=1e-7)
        assert group["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-7)
        made["lr_scheduler"]["scheduler"].step()
        if step < steps - 1:
            torchs_own.step()


def test_no_other_schedule_touches_the_momentum() -> None:
    make = functools.partial(torch.optim.AdamW, lr=1.0, betas=(0.7, 0.98))
    for schedule in (OneCycleLr(), CosineLr(), ConstantLr()):
        made = optimizer_and_schedule([{"params": [torch.zeros(1, requires_grad=True)]}], make, schedule, 20, 10)
        made["optimizer"].step()
        assert made["optimizer"].param_groups[0]["betas"] == (0.7, 0.98)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_polynomial_equals_torchs(power: float) -> None:
    expected = torchs(lr_scheduler.PolynomialLR, 50, total_iters=50, power=power)
    assert factors(PolynomialLr(power), 50) == pytest.approx(expected, abs=1e-12)
    assert PolynomialLr(power)(50, 50, 10) == 0


@pytest.mark.parametrize(("step", "value"), [(0, 0), (900, 0.5), (1800, 1), (5900, 0.25), (7950, 0.0625), (10000, 0)])
def test_quadratic_is_funmatchs(step: int, value: float) -> None:
    assert PolynomialLr(2.0, warmup_steps=1800)(step, 10000, 100) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantLr(),
        CosineLr(),
        CosineLr(warmup_epochs=1),
        PolynomialLr(),
        PolynomialLr(warmup_epochs=1),
        MultiStepLr(),
        *(OneCycleLr(r) for r in (0, 0.1, 0.5, 1)),
    ],
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


@pytest.mark.parametrize("make", [CosineLr, PolynomialLr])
def test_what_falls_falls_after_the_warmup_as_in_a_run_without_it(make: type[LrSchedule]) -> None:
    values = factors(make(warmup_steps=20), 60)
    assert values[:20] == pytest.approx([step / 20 for step in range(20)])
    assert values[20:] == pytest.approx(factors(make(), 40), abs=1e-12)


@pytest.mark.parametrize("make", [ConstantLr, CosineLr, PolynomialLr, MultiStepLr])
def test_a_warmup_in_epochs_is_the_same_in_steps(make: type[LrSchedule]) -> None:
    assert factors(make(warmup_epochs=1.5), 100) == factors(make(warmup_steps=15), 100)


@pytest.mark.parametrize("make", [ConstantLr, CosineLr, PolynomialLr, MultiStepLr])
def test_a_run_that_ends_in_its_warmup_just_warms_up(make: type[LrSchedule]) -> None:
    assert factors(make(warmup_steps=100), 50) == pytest.approx([step / 100 for step in range(50)])


@pytest.mark.parametrize("schedule", [ConstantLr, CosineLr, PolynomialLr, MultiStepLr])
def test_a_warmup_in_steps_and_in_epochs_is_a_contradiction(schedule: type[Any]) -> None:
    with pytest.raises(ValueError, match="are mutually exclusive: set one of them to 0"):
        schedule(warmup_steps=5, warmup_epochs=1.0)


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        (ConstantLr, {"warmup_steps": -1}),
        (CosineLr, {"final": 1.5}),
        (CosineLr, {"warmup_epochs": math.nan}),
        (PolynomialLr, {"power": 0}),
        (MultiStepLr, {"gamma": 0}),
        (MultiStepLr, {"milestones": [-1]}),
        (OneCycleLr, {"rise": 1.1}),
        (OneCycleLr, {"div": 0}),
    ],
)
def test_a_setting_out_of_range_is_a_value_error(schedule: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{schedule.__name__}: {next(iter(wrong))}"):
        schedule(**wrong)
