"""Telemetry averages what happened since the last reading, and names the step that went wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from kdx.training.telemetry import NonFiniteLossError, Telemetry


def values(kl: float, ce: float = 1.0) -> dict[str, Tensor]:
    return {"loss": torch.tensor(kl + ce), "loss_kl": torch.tensor(kl), "loss_ce": torch.tensor([ce, ce])}


def test_it_gives_the_means_since_the_last_reading() -> None:
    telemetry = Telemetry()
    assert telemetry.read() == {}
    for first in (0, 10):
        for step in range(first, first + 4):
            telemetry.add(values(float(step), ce=2.0), step, 8)
        means = telemetry.read()
        assert means.pop("images_per_second") > 0
        assert means == {"loss": first + 3.5, "loss_kl": first + 1.5, "loss_ce": 2.0}
    assert telemetry.read() == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 7, 19])
def test_the_first_step_that_is_not_finite_is_named_with_its_parts(at: int, bad: float) -> None:
    telemetry = Telemetry()
    for step in range(20):
        later_too = step == at or step > at + 5
        telemetry.add(values(bad if later_too else 0.5, ce=float(step)), step, 8)
    with pytest.raises(NonFiniteLossError) as error:
        telemetry.read()
    assert str(error.value) == f"Loss is not finite at step {at}: loss = {bad}, loss_kl = {bad}, loss_ce = {at}"


def test_a_bad_step_after_a_good_reading_is_still_found() -> None:
    telemetry = Telemetry()
    telemetry.add(values(1.0), 0, 8)
    telemetry.read()
    telemetry.add(values(float("nan")), 1, 8)
    telemetry.restart()  # a new epoch forgets the sums, not the failure
    telemetry.add(values(1.0), 2, 8)
    with pytest.raises(NonFiniteLossError, match="at step 1:"):
        telemetry.read()


def test_images_per_second_leaves_out_what_happens_between_restarts() -> None:
    now = 0.0
    telemetry = Telemetry(lambda: now)
    assert telemetry.images_per_second == 0
    for images, seconds, rate in ((100, 2.0, 50), (50, 1.0, 50), (300, 2.0, 150)):
        now += 1000  # validation, say
        telemetry.restart()
        telemetry.add(values(1.0), 0, images)
        now += seconds
        assert telemetry.read()["images_per_second"] == pytest.approx(rate)
    assert telemetry.images_per_second == pytest.approx(450 / 5)


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_means_and_throughput_after_a_resume_are_those_of_a_run_without_it(cut: int) -> None:
    """A window of 4 steps, of which `cut` were done before the checkpoint, after a window that was read."""
    now = 0.0

    def steps(telemetry: Telemetry, first: int, end: int) -> None:
        nonlocal now
        for step in range(first, end):
            now += 0.5
            telemetry.add(values(float(step)), step, 8)

    telemetry = Telemetry(lambda: now)
    steps(telemetry, 0, 4)
    assert telemetry.read()["images_per_second"] == pytest.approx(16)
    steps(telemetry, 4, 4 + cut)
    state = json.loads(json.dumps(telemetry.state()))  # plain data
    now += 1000  # the machine is off
    resumed = Telemetry(lambda: now)
    resumed.load(state)
    now += 100  # the teacher is loaded
    resumed.start_clock()
    steps(resumed, 4 + cut, 8)
    means = resumed.read()
    assert means["loss"] == pytest.approx(1 + (4 + 5 + 6 + 7) / 4) and means["images_per_second"] == pytest.approx(16)
    assert resumed.images_per_second == pytest.approx(64 / 4)


def test_means_are_over_all_ranks_and_every_rank_names_the_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    other = torch.tensor([[3.0, 5.0, -1.0, 0.0, 0.0]])  # two means, no step, two numbers of that step
    monkeypatch.setattr("kdx.training.telemetry.everywhere", lambda parts: torch.cat([*parts, other]))
    telemetry = Telemetry()
    for step in range(2):
        telemetry.add({"loss": torch.tensor(1.0), "loss_kl": torch.tensor(2.0)}, step, 8)
    means = telemetry.read()
    assert (means["loss"], means["loss_kl"]) == (2.0, 3.5)
    other[0, 2:] = torch.tensor([7.0, torch.nan, 4.0])
    telemetry.add({"loss": torch.tensor(1.0), "loss_kl": torch.tensor(2.0)}, 7, 8)
    with pytest.raises(NonFiniteLossError, match="at step 7: loss = nan, loss_kl = 4"):
        telemetry.read()


def test_adding_a_step_reads_no_value_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Tensor, *args: Any) -> None:
        raise AssertionError("the host waited for the device")

    telemetry, loss = Telemetry(), torch.ones((), requires_grad=True)
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            patch.setattr(Tensor, name, refuse)
        for step in range(3):
            telemetry.add({"loss": loss * 2}, step, 8)
    assert telemetry.read()["loss"] == 2 and telemetry.total is None
