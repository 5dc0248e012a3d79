"""The suite gives the same numbers however the split comes in."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import entropy

from kdx.metrics import calibration, functional
from kdx.metrics.base import Prediction
from kdx.metrics.suite import PIECE, Suite
from kdx.types import Outputs

OWN = ("accuracy", "top5", "nll", "brier", "entropy", "ece")
NAMES = {*(f"student/{name}" for name in OWN), *(f"teacher/{name}" for name in OWN), "agreement", "kl"}


def example(num_classes: int = 10, batch: int = 100) -> Outputs:
    g = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(batch, num_classes, generator=g) for _ in range(2))
    return Outputs(student, teacher, torch.randint(0, num_classes, (batch,), generator=g))


def part(outputs: Outputs, start: int, stop: int) -> Outputs:
    assert outputs.teacher_logits is not None and outputs.label is not None
    here = slice(start, stop)
    return Outputs(outputs.student_logits[here], outputs.teacher_logits[here], outputs.label[here])


def measure(suite: Suite, *batches: Outputs) -> dict[str, float]:
    for batch in batches:
        suite.update(batch)
    return suite.compute()


@pytest.mark.parametrize(
    ("num_classes", "teacher", "labels", "names"),
    [
        (10, True, True, NAMES),
        (10, False, True, {name for name in NAMES if name.startswith("student/")}),
        (10, True, False, {"student/entropy", "teacher/entropy", "agreement", "kl"}),
        (10, False, False, {"student/entropy"}),
        (2, True, True, {name for name in NAMES if not name.endswith("top5")}),
        (5, True, True, {name for name in NAMES if not name.endswith("top5")}),
    ],
)
def test_it_gives_what_can_be_measured(num_classes: int, teacher: bool, labels: bool, names: set[str]) -> None:
    outputs = example(num_classes)
    given = Outputs(outputs.student_logits, outputs.teacher_logits if teacher else None, outputs.label if labels else None)
    assert set(measure(Suite(num_classes, teacher=teacher, labels=labels), given)) == names


def test_each_number_is_the_mean_of_its_metric_over_its_network() -> None:
    outputs, numbers = example(), measure(Suite(10), example())
    assert outputs.teacher_logits is not None and outputs.label is not None
    student, teacher = (z.double().log_softmax(-1) for z in (outputs.student_logits, outputs.teacher_logits))
    for network, log_probs in (("student", student), ("teacher", teacher)):
        predicted = log_probs.argmax(-1)
        for name, values in (("accuracy", predicted), ("nll", log_probs), ("brier", log_probs.exp())):
            expected = getattr(functional, name)(values, outputs.label).mean().item()
            assert numbers[f"{network}/{name}"] == pytest.approx(expected)
        assert numbers[f"{network}/top5"] == pytest.approx(functional.topk(log_probs, outputs.label, 5).mean().item())
        assert numbers[f"{network}/entropy"] == pytest.approx(functional.entropy(log_probs, log_probs.exp()).mean().item())
        sums = calibration.bins(log_probs.amax(-1).exp(), predicted == outputs.label, 15)
        assert numbers[f"{network}/ece"] == pytest.approx(calibration.expected_calibration_error(sums).item())
    assert numbers["agreement"] == pytest.approx((student.argmax(-1) == teacher.argmax(-1)).double().mean().item())
    assert numbers["kl"] == pytest.approx(functional.kl(student, teacher, teacher.exp()).mean().item())


def test_with_many_classes_it_equals_plain_formulas() -> None:
    outputs = example(21_841, 13)  # is read in pieces
    assert outputs.teacher_logits is not None and outputs.label is not None and outputs.student_logits.numel() > PIECE
    rows, label = np.arange(13), outputs.label.numpy()
    p, q = (softmax(z.double().numpy(), -1) for z in (outputs.teacher_logits, outputs.student_logits))
    numbers = measure(Suite(21_841), outputs)
    for network, own in (("student", q), ("teacher", p)):
        confidence, right = own.max(-1), own.argmax(-1) == label
        low = [confidence * 15 > i for i in range(16)]
        gaps = [(confidence - right)[here & ~above].sum() for here, above in itertools.pairwise(low)]
        expected = {
            "accuracy": right.mean(),
            "top5": (np.argsort(-own, -1)[:, :5] == label[:, None]).any(-1).mean(),
            "nll": -np.log(own[rows, label]).mean(),
            "brier": ((own - np.eye(own.shape[1], dtype=np.int8)[label]) ** 2).sum(-1).mean(),
            "entropy": entropy(own, axis=-1).mean(),
            "ece": np.abs(gaps).sum() / 13,
        }
        assert {name: numbers[f"{network}/{name}"] for name in OWN} == pytest.approx(expected, rel=1e-12)
    assert numbers["agreement"] == (p.argmax(-1) == q.argmax(-1)).mean()
    assert numbers["kl"] == pytest.approx(rel_entr(p, q).sum(-1).mean(), rel=1e-12)


def test_batches_of_uneven_size_count_by_example() -> None:
    outputs = example()
    uneven = [part(outputs, *ends) for ends in ((0, 1), (1, 64), (64, 97), (97, 100))]
    assert measure(Suite(10), *uneven) == pytest.approx(measure(Suite(10), outputs), rel=1e-12)


def test_ranks_add_up_to_the_whole() -> None:
    outputs = example()
    first, second = Suite(10), Suite(10)
    first.update(part(outputs, 0, 70))
    second.update(part(outputs, 70, 100))
    first.merge_state(second)
    assert first.compute() == pytest.approx(measure(Suite(10), outputs), rel=1e-12)


def test_after_a_reset_nothing_is_left_of_before() -> None:
    suite, outputs = Suite(10), example()
    measure(suite, part(outputs, 0, 50))
    suite.reset()
    assert measure(suite, outputs) == measure(Suite(10), outputs)


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_entropy_is_between_zero_and_log_k_and_all_numbers_are_finite(
    dtype: torch.dtype, scale: float, num_classes: int
) -> None:
    outputs = example(num_classes)
    assert outputs.teacher_logits is not None
    logits = [(scale * z).clamp(-6e4, 6e4).to(dtype) for z in (outputs.student_logits, outputs.teacher_logits)]
    numbers = measure(Suite(num_classes), Outputs(*logits, outputs.label))
    assert all(map(math.isfinite, numbers.values()))
    assert 0 <= numbers["student/entropy"] <= math.log(num_classes) + 1e-12
    assert scale or numbers["student/entropy"] == pytest.approx(math.log(num_classes))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_teacher_that_is_the_student_agrees_with_it_at_no_distance(scale: float) -> None:
    outputs = example()
    logits = scale * outputs.student_logits
    numbers = measure(Suite(10), Outputs(logits, logits.clone(), outputs.label))
    assert (numbers["agreement"], numbers["kl"]) == (1, 0)
    assert all(numbers[f"student/{name}"] == numbers[f"teacher/{name}"] for name in OWN)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_prediction_is_the_softmax_in_float64_of_logits_of_any_type_and_size(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, 9e3], [0.0, 0.0, -torch.inf], [-3e4, -2e4, -2e4], [0.3, -0.2, 0.1]]).to(dtype)
    before = logits.clone()
    found, log_probs = Prediction.of(logits), logits.double().log_softmax(-1)
    torch.testing.assert_close(found.log_probs, log_probs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.probs, log_probs.exp(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found.likeliest[0], log_probs.max(-1)[0], rtol=1e-12, atol=1e-12)
    assert found.likeliest[1].tolist() == [0, 0, 1, 0] and torch.equal(logits, before)
