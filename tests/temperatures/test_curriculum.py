"""The learned temperature climbs the loss that the student descends."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from kdx.losses import functional
from kdx.temperatures.curriculum import Curriculum
from kdx.temperatures.ramp import Ramp
from kdx.types import Progress

LAST = Progress(1.0, epoch=99)  # λ has reached its end
TABLE = (0.0245, 0.0955, 0.2061, 0.3455, 0.5, 0.6545, 0.7939, 0.9045, 0.9755, 1, 1, 1)  # the authors', with their sign


@functools.cache
def cifar_like() -> tuple[Tensor, Tensor]:
    """Student and teacher logits [256,100] whose τ²KL has its maximum inside (1, 21)."""
    g = torch.Generator().manual_seed(0)
    teacher = 2 * torch.randn(256, 100, generator=g)
    teacher[torch.arange(256), torch.randint(0, 100, (256,), generator=g)] += 14
    return teacher / 2 + 2 * torch.randn(256, 100, generator=g), teacher


def distance(student: Tensor, teacher: Tensor, temperature: Tensor | float) -> Tensor:
    return functional.kl(student, teacher, temperature).mean()


def test_it_starts_where_the_authors_start() -> None:
    assert Curriculum()(*cifar_like(), LAST).item() == pytest.approx(15.6211700, abs=1e-5)


@pytest.mark.parametrize("epoch", range(12))
def test_lambda_follows_the_authors_table(epoch: int) -> None:
    assert Curriculum().telemetry(Progress(0.0, epoch))["lambda"] == pytest.approx(TABLE[epoch], abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "shares"),
    [
        ("cosine", (0.14644661, 0.5, 0.85355339, 1, 1, 1)),
        ("linear", (0.25, 0.5, 0.75, 1, 1, 1)),
        ("constant", (1, 1, 1, 1, 1, 1)),
    ],
)
def test_lambda_goes_from_its_minimum_to_its_end_in_the_given_number_of_epochs(shape: Any, shares: tuple[float, ...]) -> None:
    temperature = Curriculum(ramp=shape, ramp_epochs=4, lambda_min=0.1, lambd=0.5)
    values = [temperature.telemetry(Progress(0.0, epoch))["lambda"] for epoch in range(6)]
    assert values == pytest.approx([0.1 + 0.4 * share for share in shares])


@pytest.mark.parametrize("raw", [1.0, -4.0])
def test_a_step_that_minimizes_the_objective_raises_the_loss_through_the_temperature(raw: float) -> None:
    temperature = Curriculum(raw=raw)
    before = distance(*cifar_like(), temperature(*cifar_like(), LAST))
    before.backward()
    torch.optim.SGD(temperature.parameters(), lr=0.1).step()
    after = distance(*cifar_like(), temperature(*cifar_like(), LAST))
    assert after > before + 1e-4


@pytest.mark.parametrize("epoch", [0, 4, 20])
def test_the_gradient_is_minus_lambda_times_the_losses_own(epoch: int) -> None:
    temperature = Curriculum(lambd=0.8)
    distance(*cifar_like(), temperature(*cifar_like(), Progress(0.0, epoch))).backward()
    raw = torch.tensor(1.0, requires_grad=True)
    distance(*cifar_like(), 1 + 20 * torch.sigmoid(raw)).backward()
    assert raw.grad is not None and temperature.raw.grad is not None and raw.grad.abs() > 1e-3
    expected = -Ramp(end=0.8)(epoch) * raw.grad
    torch.testing.assert_close(temperature.raw.grad, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("epoch", [0, 99])
def test_the_students_gradient_is_that_of_a_constant_temperature(epoch: int) -> None:
    gradients = []
    for learned in (True, False):
        student = cifar_like()[0].clone().requires_grad_()
        tau = Curriculum()(student, cifar_like()[1], Progress(0.0, epoch))
        distance(student, cifar_like()[1], tau if learned else tau.detach()).backward()
        gradients.append(student.grad)
    assert gradients[0] is not None and gradients[0].abs().sum() > 0 and torch.equal(gradients[0], gradients[1])


@pytest.mark.parametrize(("raw", "expected"), [(1e4, 21.0), (-1e4, 1.0)])
def test_it_stays_in_its_range_with_a_finite_gradient_at_any_raw(raw: float, expected: float) -> None:
    temperature = Curriculum(low=1.0, span=20.0, raw=raw)
    tau = temperature(*cifar_like(), LAST)
    distance(*cifar_like(), tau).backward()
    assert 1.0 <= tau.item() <= 21.0 and tau.item() == pytest.approx(expected)
    assert temperature.raw.grad is not None and temperature.raw.grad.isfinite()


def test_from_either_side_it_meets_at_the_temperature_with_the_largest_loss() -> None:
    grid = torch.linspace(1.05, 20.95, 400)
    worst = grid[torch.stack([distance(*cifar_like(), tau) for tau in grid]).argmax()].item()
    assert 2 < worst < 5  # inside the range, so that it can be approached from both sides
    ends = []
    for raw in (1.0, -4.0):  # τ = 15.6 and 1.4
        temperature = Curriculum(raw=raw)
        optimizer = torch.optim.SGD(temperature.parameters(), lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            distance(*cifar_like(), temperature(*cifar_like(), LAST)).backward()
            optimizer.step()
        ends.append(temperature(*cifar_like(), LAST).item())
    assert abs(ends[0] - ends[1]) < 0.1 and ends == pytest.approx([worst, worst], abs=0.1)


@pytest.mark.parametrize(("raw", "end"), [(1.0, 21.0), (-4.0, 1.0)])
def test_without_the_reversal_it_runs_to_the_end_of_its_range_on_its_side_of_the_maximum(raw: float, end: float) -> None:
    temperature = Curriculum(raw=raw, reverse=False)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=1.0)
    path = []
    for _ in range(2000):
        optimizer.zero_grad()
        tau = temperature(*cifar_like(), LAST)
        loss = distance(*cifar_like(), tau)
        loss.backward()
        optimizer.step()
        path.append(tau.item())
    assert all((b - a) * (end - path[0]) > 0 for a, b in itertools.pairwise(path[:200]))
    assert path[-1] == pytest.approx(end, abs=1.0) and abs(path[-1] - end) < abs(path[0] - end) / 2


@pytest.mark.parametrize(
    ("raw", "told"), [(1.0, None), (4.5, None), (4.7, "lower temperature"), (9.0, "raise temperature.span"), (-9.0, "1, where")]
)
def test_it_complains_within_a_hundredth_of_the_end_of_its_range(raw: float, told: str | None) -> None:
    temperature = Curriculum(raw=raw)
    assert temperature.complaint() is None  # nothing has happened yet
    temperature(*cifar_like(), LAST)
    said = temperature.complaint()
    assert (said is None) == (told is None)
    assert told is None or (said is not None and told in said and said.endswith("temperature=constant"))


def test_it_complains_of_a_temperature_that_is_not_finite() -> None:
    temperature = Curriculum()
    with torch.no_grad():
        temperature.raw.fill_(float("nan"))
    temperature(*cifar_like(), LAST)
    assert "not finite" in str(temperature.complaint())


def test_validation_says_nothing_of_the_temperature() -> None:
    temperature = Curriculum(raw=9.0).eval()
    temperature(*cifar_like(), LAST)
    assert temperature.complaint() is None


def test_the_state_dict_holds_the_raw_parameter_and_brings_it_back() -> None:
    trained, fresh = Curriculum(raw=-0.7), Curriculum()
    assert list(trained.state_dict()) == ["raw"]
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(*cifar_like(), LAST), trained(*cifar_like(), LAST))


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": 0},
        {"span": -1},
        {"raw": float("nan")},
        {"ramp_epochs": 0},
        {"lambd": 1.1},
        {"lambd": -1},
        {"lambda_min": -0.1},
        {"ramp": "square"},
        {"weight_decay": -1},
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_a_value_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"Curriculum: {next(iter(wrong))}"):
        Curriculum(**wrong)
