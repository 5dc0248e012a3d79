"""Metrics from outside: what they may return, and that batches and ranks do not matter."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdx.metrics.base import EvaluationMetric, ExampleMetric, PredictionBatch
from kdx.metrics.selection import BUILT_IN, applicable, check_added, directions
from kdx.metrics.suite import Suite
from kdx.metrics.table import MetricTable, made_up
from kdx.types import Outputs


class Computed(ExampleMetric):
    """A metric whose values are what `compute` makes of the batch."""

    def __init__(self, compute: Callable[[PredictionBatch], Tensor | float], **needs: bool) -> None:
        self.compute = compute
        self.needs_label, self.needs_teacher = needs.get("label", False), needs.get("teacher", False)

    def per_example(self, batch: PredictionBatch) -> Tensor:
        return self.compute(batch)  # type: ignore[return-value]  # some tests return a float


class Ratio(EvaluationMetric):
    """The summed probability of class 0 over that of class 1: not a mean over examples."""

    higher_is_better = True

    def sums(self, batch: PredictionBatch) -> Tensor:
        return batch.probs[:, :2].sum(0)

    def result(self, sums: Tensor, count: Tensor) -> Tensor:
        return sums[0] / sums[1]


class Growing(Ratio):
    """Keeps as many sums as the batch has examples."""

    def sums(self, batch: PredictionBatch) -> Tensor:
        return batch.probs[:, 0]

    def result(self, sums: Tensor, count: Tensor) -> Tensor:
        return sums.sum()


class Vector(Ratio):
    """Returns two numbers."""

    def result(self, sums: Tensor, count: Tensor) -> Tensor:
        return sums


def example(size: int = 100, num_classes: int = 10) -> Outputs:
    g = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(size, num_classes, generator=g) for _ in range(2))
    return Outputs(student, teacher, torch.randint(0, num_classes, (size,), generator=g))


def part(outputs: Outputs, start: int, stop: int) -> Outputs:
    assert outputs.teacher_logits is not None and outputs.label is not None
    here = slice(start, stop)
    return Outputs(outputs.student_logits[here], outputs.teacher_logits[here], outputs.label[here])


def added() -> dict[str, EvaluationMetric]:
    gap = Computed(lambda batch: (batch.probs - batch.teacher_log_probs.exp()).abs().sum(-1), teacher=True)
    return {"confidence": Computed(lambda batch: batch.probs.max(-1).values), "gap": gap, "ratio": Ratio()}


def test_values_per_example_are_averaged_and_sums_are_added() -> None:
    outputs = example()
    suite = Suite(10, added())
    suite.update(outputs)
    numbers = suite.compute()
    assert outputs.teacher_logits is not None
    student, teacher = (logits.double().softmax(-1) for logits in (outputs.student_logits, outputs.teacher_logits))
    for name, probs in (("student", student), ("teacher", teacher)):
        assert numbers[f"{name}/confidence"] == pytest.approx(probs.amax(-1).mean().item(), rel=1e-12)
        assert numbers[f"{name}/ratio"] == pytest.approx((probs[:, 0].sum() / probs[:, 1].sum()).item(), rel=1e-12)
    assert numbers["gap"] == pytest.approx((student - teacher).abs().sum(-1).mean().item(), rel=1e-12)
    assert list(numbers) == suite.names and "gap" not in {name.rpartition("/")[2] for name in suite.names if "/" in name}


def test_batches_and_shards_do_not_matter_and_a_reset_forgets() -> None:
    outputs = example()
    whole, first, second = (Suite(10, added()) for _ in range(3))
    whole.update(outputs)
    for ends in ((0, 1), (1, 64)):
        first.update(part(outputs, *ends))
    second.update(part(outputs, 64, 100))
    first.merge_state(second)
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
    first.reset()
    first.update(outputs)
    assert first.compute() == whole.compute()


def test_an_added_metric_changes_no_other_number() -> None:
    alone, together = Suite(10), Suite(10, added())
    for suite in (alone, together):
        suite.update(example())
    numbers = together.compute()
    assert alone.compute() == {name: numbers[name] for name in alone.names}


@pytest.mark.parametrize("value", [0.25, torch.tensor(0.25), torch.tensor(0.25, dtype=torch.float32)])
def test_a_number_counts_for_every_example_of_its_batch(value: Tensor | float) -> None:
    suite = Suite(10, {"mine": Computed(lambda batch: value if len(batch) > 5 else 1.0)}, teacher=False)
    for ends in ((0, 96), (96, 100)):
        suite.update(part(example(), *ends))
    assert suite.compute()["student/mine"] == pytest.approx(0.25 * 0.96 + 0.04, rel=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 10])
@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Computed(lambda batch: batch.probs), r"metrics\.mine: returned shape \[\d, {K}\]; expected \[\d\] \(one value per"),
        (Computed(lambda batch: batch.probs.sum(0)), r"metrics\.mine: returned shape \[{K}\]; expected \[\d\]"),
        (Computed(lambda batch: batch.probs[:, :1]), r"metrics\.mine: returned shape \[\d, 1\].*change what `per_example`"),
        (Computed(lambda batch: batch.label), r"metrics\.mine: .*reads `label`.*set `needs_label = True`"),
        (Computed(lambda batch: batch.teacher_log_probs), r"metrics\.mine: .*set `needs_teacher = True`"),
        (
            Computed(lambda batch: batch.probs @ batch.probs),
            r"metrics\.mine failed on a trial batch of shape \[\d, {K}\]: RuntimeE",
        ),
        (Vector(), r"metrics\.mine: result has shape \[2\]; expected \[\] \(a number\)"),
    ],
)
def test_a_wrong_shape_is_refused_by_name_before_any_data(metric: EvaluationMetric, message: str, num_classes: int) -> None:
    with pytest.raises(ValueError, match=message.replace("{K}", str(num_classes))):
        check_added({"mine": metric}, num_classes, labels=True)


def test_a_shape_that_goes_wrong_later_is_refused_on_the_batch() -> None:
    sometimes = Computed(lambda batch: batch.probs[:, 0] if len(batch) < 10 else batch.probs)
    for metric, message in (
        (sometimes, r"metrics\.mine: returned shape \[100, 10\]; expected \[100\]"),
        (Growing(), r"metrics\.mine: sums have shape \[100\]; expected \[3\]"),
    ):
        suite = Suite(10, {"mine": metric})
        with pytest.raises(ValueError, match=message):
            suite.update(example())


@pytest.mark.parametrize(
    ("name", "metric", "labels", "message"),
    [
        (
            "mine",
            Computed(lambda batch: batch.label, label=True),
            False,
            "mine needs labels, but the data set has none: remove",
        ),
        ("accuracy", Ratio(), True, "'accuracy' is the name of a built-in metric; choose another name"),
        ("ece_mass", Ratio(), True, "is the name of a built-in metric"),
        ("my/own", Ratio(), True, "contains '/'"),
        ("mine", torch.nn.Identity(), True, "Identity is not a metric; derive it from kdx.metrics.base.ExampleMetric"),
    ],
)
def test_what_cannot_be_measured_is_refused(name: str, metric: EvaluationMetric, labels: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_added({name: metric}, 10, labels=labels)


def test_what_needs_labels_or_a_teacher_is_left_out_without() -> None:
    labeled = Computed(lambda batch: batch.label, label=True)
    names = applicable({**added(), "mine": labeled}, 10, labels=False, teacher=False)
    assert set(names) == {"entropy", "confidence", "ratio"}


def test_directions_are_those_of_the_classes() -> None:
    known = directions(added())
    assert (known["accuracy"], known["ece"], known["entropy"], known["auroc"]) == (True, False, None, True)
    assert known["ratio"] is True and known["gap"] is None
    assert set(known) > set(BUILT_IN)


def test_the_trial_draws_no_random_number() -> None:
    before = torch.random.get_rng_state()
    MetricTable(BUILT_IN, 10)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(math.isclose(total, 1) for total in made_up(7).probs.sum(-1).tolist())
