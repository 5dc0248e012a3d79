"""A temperature for each example climbs that example's loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdx.losses import functional
from kdx.temperatures.curriculum import Curriculum, InstanceCurriculum
from kdx.types import Progress

LAST = Progress(1.0, epoch=99)  # λ has reached its end
K = 20


def logits(spread: float, seed: int = 0, examples: int = 64) -> tuple[Tensor, Tensor]:
    """Student and teacher logits [B,K] of one size."""
    g = torch.Generator().manual_seed(seed)
    teacher = torch.randn(examples, K, generator=g)
    teacher[torch.arange(examples), torch.randint(0, K, (examples,), generator=g)] += 7
    return spread * (teacher / 2 + torch.randn(examples, K, generator=g)), spread * teacher


def connected(**kwargs: Any) -> InstanceCurriculum:
    torch.manual_seed(1)
    temperature = InstanceCurriculum(**kwargs)
    temperature.connect(K)
    return temperature


def train(temperature: InstanceCurriculum, student: Tensor, teacher: Tensor, steps: int = 400) -> Tensor:
    """Its temperatures [B,1] after steps that minimize the objective."""
    optimizer = torch.optim.Adam(temperature.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.kl(student, teacher, temperature(student, teacher, LAST)).mean().backward()
        optimizer.step()
    return temperature(student, teacher, LAST).detach()


def test_all_examples_start_where_the_global_one_starts() -> None:
    tau = connected()(*logits(1.0), LAST)
    assert tau.shape == (64, 1)
    torch.testing.assert_close(tau, Curriculum()(*logits(1.0), LAST).expand(64, 1).detach(), rtol=0, atol=0)


def test_the_loss_is_each_examples_own_at_its_own_temperature() -> None:
    student, teacher = logits(1.0)
    temperature = connected()
    torch.nn.init.normal_(temperature.mlp[-1].weight)
    tau = temperature(student, teacher, LAST).detach()
    assert tau.std() > 1
    expected = []
    for s, t, own in zip(student.double().numpy(), teacher.double().numpy(), tau.double().numpy().ravel(), strict=True):
        p, q = (np.exp(z / own) / np.exp(z / own).sum() for z in (t, s))
        expected.append(own**2 * (p * np.log(p / q)).sum())
    assert functional.kl(student, teacher, tau).numpy() == pytest.approx(np.array(expected), rel=2e-4)


def test_the_students_gradient_is_that_of_the_same_temperatures_held_fixed() -> None:
    gradients = []
    temperature = connected()
    torch.nn.init.normal_(temperature.mlp[-1].weight)
    for learned in (True, False):
        student = logits(1.0)[0].clone().requires_grad_()
        teacher = logits(1.0)[1]
        tau = temperature(student, teacher, LAST)
        functional.kl(student, teacher, tau if learned else tau.detach()).mean().backward()
        gradients.append(student.grad)
    assert gradients[0] is not None and gradients[0].abs().sum() > 0 and torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize(("reverse", "sign"), [(True, -1), (False, 1)])
@pytest.mark.parametrize("epoch", [0, 4, 20])
def test_every_weights_gradient_is_lambda_times_the_losses_own(epoch: int, reverse: bool, sign: int) -> None:
    student, teacher = logits(1.0)
    ours, plain = connected(reverse=reverse, lambd=0.8), connected(ramp="constant", reverse=False)
    for temperature in (ours, plain):
        torch.nn.init.normal_(temperature.mlp[-1].weight, generator=torch.Generator().manual_seed(0))
        progress = Progress(0.0, epoch) if temperature is ours else LAST
        functional.kl(student, teacher, temperature(student, teacher, progress)).mean().backward()
    factor = sign * ours.telemetry(Progress(0.0, epoch))["lambda"]
    for own, losses in zip(ours.parameters(), plain.parameters(), strict=True):
        assert own.grad is not None and losses.grad is not None and losses.grad.abs().max() > 0
        torch.testing.assert_close(own.grad, factor * losses.grad, rtol=1e-4, atol=1e-9)


def test_examples_of_either_kind_find_the_temperature_at_which_their_loss_is_largest() -> None:
    kinds = [logits(1.0), logits(2.0, seed=1)]  # their losses are largest at 2.15 and 4.55
    grid = torch.linspace(1.05, 20.95, 200)
    losses = torch.stack([torch.stack([functional.kl(*kind, tau).mean() for tau in grid]) for kind in kinds])
    both = [torch.cat(pair) for pair in zip(*kinds, strict=True)]
    tau = train(connected(), *both, steps=800)
    found = functional.kl(*both, tau).view(2, 64).mean(1)
    assert (found > losses.amax(1)).all()  # harder than any temperature that all of a kind share
    assert found.mean() > 1.05 * losses.mean(0).max()  # or all of both
    assert tau.view(2, 64).mean(1).tolist() == pytest.approx(grid[losses.argmax(1)].tolist(), rel=0.3)


def test_without_the_reversal_the_temperatures_lower_the_loss() -> None:
    student, teacher = logits(1.0)
    before = functional.kl(student, teacher, 15.62).mean()
    kept, baseline = (
        functional.kl(student, teacher, train(connected(reverse=r), student, teacher)).mean() for r in (True, False)
    )
    assert baseline < before < kept


def test_autocast_does_not_coarsen_it_and_huge_logits_leave_it_finite() -> None:
    student, teacher = logits(1.0)
    temperature = connected()
    torch.nn.init.normal_(temperature.mlp[-1].weight, std=0.1)
    expected = temperature(student, teacher, LAST)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(temperature(student, teacher, LAST), expected)
    student = (1e4 * student).requires_grad_()
    tau = temperature(student, 1e4 * teacher, LAST)
    functional.kl(student, 1e4 * teacher, tau).mean().backward()
    assert tau.isfinite().all() and student.grad is not None and student.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in temperature.parameters())


def test_it_complains_when_more_than_half_of_a_batch_is_stuck() -> None:
    temperature = connected()
    weight, bias = temperature.mlp[-1].weight, temperature.mlp[-1].bias
    for shift, told in ((0.0, None), (20.0, "100% of the batch is stuck at the end of its range, 21"), (-20.0, "range, 1,")):
        torch.nn.init.constant_(bias, shift)
        temperature(*logits(1.0), LAST)
        said = temperature.complaint()
        assert (said is None) if told is None else (said is not None and told in said)
    torch.nn.init.constant_(bias, 0.0)
    torch.nn.init.constant_(weight, float("nan"))
    temperature(*logits(1.0), LAST)
    assert "not finite" in str(temperature.complaint())


def test_a_training_step_reads_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Tensor, *args: Any) -> None:
        raise AssertionError("the host waited for the device")

    temperature, pair = connected(), logits(1.0)
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            patch.setattr(Tensor, name, refuse)
        temperature(*pair, LAST)
    assert temperature.complaint() is None


def test_the_state_dict_brings_it_back() -> None:
    trained, fresh = connected(), connected()
    train(trained, *logits(1.0), steps=5)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(*logits(1.0), LAST), trained(*logits(1.0), LAST))


@pytest.mark.parametrize(
    "wrong", [{"hidden": 0}, {"low": 0}, {"span": -1}, {"ramp": "no"}, {"lambda_min": 2}, {"weight_decay": -1}], ids=str
)
def test_a_setting_out_of_range_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"InstanceCurriculum: {next(iter(wrong))}"):
        InstanceCurriculum(**wrong)
