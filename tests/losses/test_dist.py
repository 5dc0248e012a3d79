"""DIST is Pearson's correlation, also of probabilities too small for single precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import pearsonr
from torch import Tensor

from kdx.losses.dist import DIST, decorrelation
from kdx.types import Outputs, TemperaturePair

HALVES = (torch.float16, torch.bfloat16)


def logits(num_classes: int, scale: float, batch: int = 6) -> tuple[Tensor, Tensor]:
    """float64 logits of student and teacher."""
    rng = np.random.default_rng(4)  # of whose two classes each is the likelier one at least once
    student, teacher = (torch.from_numpy(rng.standard_normal((batch, num_classes)) * scale) for _ in range(2))
    return student, teacher


def reference(student: Tensor, teacher: Tensor, temperature: float) -> tuple[float, float]:
    """Inter- and intra-class part, each a mean of 1 - SciPy's correlation of rows or columns in units of their largest."""

    def mean_gap(log_q: np.ndarray, log_p: np.ndarray) -> float:
        pairs = zip(*(np.exp(z - z.max(-1, keepdims=True)) for z in (log_q, log_p)), strict=True)
        return float(np.mean([1 - pearsonr(q, p).statistic for q, p in pairs]))

    log_q, log_p = (log_softmax(z.numpy() / temperature, -1) for z in (student, teacher))
    return mean_gap(log_q, log_p), mean_gap(log_q.T, log_p.T)


def of(
    student: Tensor, teacher: Tensor, temperature: float | TemperaturePair = 1.0, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """The loss of logits."""
    tau = temperature if isinstance(temperature, TemperaturePair) else torch.tensor(temperature, dtype=torch.float64)
    return DIST(beta, gamma)(Outputs(student, teacher, temperature=tau))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_it_equals_scipy(scale: float, num_classes: int, temperature: float) -> None:
    student, teacher = logits(num_classes, scale)
    inter, intra = reference(student, teacher, temperature)
    result = of(student, teacher, temperature, beta=2, gamma=3)
    assert result.shape == ()
    assert result.item() == pytest.approx(temperature**2 * (2 * inter + 3 * intra), rel=1e-9)
    single = of(student.float(), teacher.float(), temperature, beta=2, gamma=3)
    assert single.item() == pytest.approx(result.item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_teacher_with_itself_gives_exactly_zero(scale: float, dtype: torch.dtype) -> None:
    z = logits(100, scale)[0].clamp(-6e4, 6e4).to(dtype)
    assert of(z, z.clone()).item() == 0


def test_any_linear_relation_of_probabilities_is_perfect() -> None:
    teacher = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)
    student = 0.5 * teacher + 0.5 / 3
    torch.testing.assert_close(decorrelation(student.log(), teacher.log(), 1), torch.zeros(2, dtype=torch.float64))
    opposite = (1 - teacher) / 2
    torch.testing.assert_close(decorrelation(opposite.log(), teacher.log(), 1), torch.full((2,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("constant", [torch.zeros(4, 10), torch.full((4, 10), 0.1), torch.full((4, 10), -1e4)])
def test_a_constant_student_gives_half_and_no_gradient(constant: Tensor) -> None:
    student = constant.clone().requires_grad_()
    result = of(student, logits(10, 3, batch=4)[1].float())
    assert result.item() == pytest.approx(1.0)  # a half for each part
    assert torch.autograd.grad(result, student)[0].eq(0).all()


def test_one_example_has_no_relation_to_others() -> None:
    student, teacher = logits(10, 3, batch=1)
    expected = 1 - pearsonr(*(z.softmax(-1)[0].numpy() for z in (student, teacher))).statistic
    assert of(student, teacher, gamma=5).item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_read_in_single_with_finite_gradients(dtype: torch.dtype) -> None:
    student, teacher = (z.to(dtype) for z in logits(10, 1e4))
    student.requires_grad_()
    result = of(student, teacher)
    assert result.item() == of(student.float(), teacher.float()).item()
    assert torch.autograd.grad(result, student)[0].isfinite().all()


def test_constants_and_orders_change_nothing() -> None:
    student, teacher = logits(10, 3)
    rng = np.random.default_rng(1)
    classes, examples = torch.from_numpy(rng.permutation(10)), torch.from_numpy(rng.permutation(6))
    moved = of(student[examples][:, classes] + 5, teacher[examples][:, classes] - 7, 2.0)
    torch.testing.assert_close(moved, of(student, teacher, 2.0))


def test_a_temperature_per_example_weighs_its_row_and_by_the_mean_the_columns() -> None:
    student, teacher = logits(10, 3, batch=2)
    tau = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    log_q, log_p = (student / tau).log_softmax(-1), (teacher / tau).log_softmax(-1)
    rows, columns = decorrelation(log_q, log_p, 1), decorrelation(log_q, log_p, 0)
    expected = (rows[0] + 9 * rows[1]) / 2 + 5 * columns.mean()
    torch.testing.assert_close(of(student, teacher, TemperaturePair(tau, tau, tau * tau)), expected)


def test_gradients_are_the_numerical_ones() -> None:
    student, teacher = logits(5, 2, batch=4)
    tau = torch.tensor(2.5, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (student, teacher, tau)]
    assert torch.autograd.gradcheck(lambda s, t, a: of(s, t, TemperaturePair(a, a, a * a)), inputs)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_with_an_epsilon_it_is_the_authors_code(scale: float) -> None:
    student, teacher = logits(12, scale)

    def relation(q: Tensor, p: Tensor) -> Tensor:
        q, p = q - q.mean(1, keepdim=True), p - p.mean(1, keepdim=True)
        return 1 - ((q * p).sum(1) / (q.norm(dim=1) * p.norm(dim=1) + 1e-8)).mean()

    q, p = (z.softmax(1) for z in (student, teacher))
    expected = relation(q, p) + relation(q.T, p.T)
    outputs = Outputs(student, teacher_logits=teacher, temperature=torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(DIST(epsilon=1e-8)(outputs), expected, rtol=1e-9, atol=1e-12)
