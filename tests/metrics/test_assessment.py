"""An assessment says what the suite says, and more, whatever the order and the sharding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kdx.metrics import calibration
from kdx.metrics.assessment import Assessment, AssessmentResult
from kdx.metrics.suite import Suite
from kdx.types import Outputs

DEEP = {"ece", "ece_by_chance", "ece_mass", "ece_classwise", "mce", "rms_ce", "auroc"}
DEEP |= {f"brier_{part}" for part in ("reliability", "resolution", "uncertainty", "within")}


def example(num_classes: int = 10, size: int = 101) -> tuple[Tensor, Tensor]:
    """Logits [N,K] float32, some of them saturated and some tied, and labels."""
    g = torch.Generator().manual_seed(num_classes)
    logits = 3 * torch.randn(size, num_classes, generator=g)
    label = torch.multinomial((logits / 2).softmax(-1), 1, generator=g)[:, 0]
    logits[: size // 5] *= 1e4
    logits[-size // 5 :] = logits[-size // 5 :].round()
    return logits, label


def assess(*batches: tuple[Tensor, Tensor], num_classes: int = 10) -> AssessmentResult:
    assessment = Assessment(num_classes)
    for logits, label in batches:
        assessment.update(logits, label)
    return assessment.compute()


@pytest.mark.parametrize("num_classes", [2, 10, 30])
def test_it_says_all_that_the_suite_says_and_is_deep(num_classes: int) -> None:
    logits, label = example(num_classes)
    suite = Suite(num_classes, teacher=False)
    suite.update(Outputs(logits, label=label))
    known = {name.removeprefix("student/"): value for name, value in suite.compute().items()}
    found = assess((logits, label), num_classes=num_classes).numbers
    assert {name: found[name] for name in known} == pytest.approx(known, rel=1e-12)
    assert found.keys() == known.keys() | DEEP
    parts = found["brier_reliability"] - found["brier_resolution"] + found["brier_uncertainty"] + found["brier_within"]
    assert parts == pytest.approx(found["brier"], abs=1e-12)


def test_batches_shards_and_order_do_not_matter() -> None:
    logits, label = example()
    whole = assess((logits, label))
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(1))
    uneven = list(zip(logits[order].split([1, 63, 30, 7]), label[order].split([1, 63, 30, 7]), strict=True))
    first, second = Assessment(10), Assessment(10)
    for batch in uneven[:3]:
        first.update(*batch)
    second.update(*uneven[3])
    first.merge_state(second)
    for other in (assess(*uneven), first.compute()):
        assert other.numbers == pytest.approx(whole.numbers, rel=1e-9, abs=1e-12)
        torch.testing.assert_close(other.diagram, whole.diagram)
        torch.testing.assert_close(other.per_class, whole.per_class)


def test_the_diagram_and_the_classes_count_every_example_once() -> None:
    logits, label = example()
    found = assess((logits, label))
    assert found.diagram is not None and found.per_class is not None
    log_probs = logits.double().log_softmax(-1)
    torch.testing.assert_close(found.diagram, calibration.bins(log_probs.exp().amax(-1), log_probs.argmax(-1) == label, 15))
    confidence, predicted = log_probs.exp().max(-1)
    for k in range(10):
        own = label == k
        expected = [own.sum().item(), confidence[own].sum().item(), (predicted[own] == k).sum().item()]
        assert found.per_class[:, k].tolist() == pytest.approx(expected)
    torch.testing.assert_close(found.per_class.sum(1), found.diagram.sum(1))


def test_after_a_reset_nothing_is_left_of_before() -> None:
    assessment = Assessment(10)
    assessment.update(*example(size=50))
    assessment.compute()
    assessment.reset()
    assessment.update(*example())
    assert assessment.compute().numbers == assess(example()).numbers


def test_the_order_of_the_classes_does_not_matter() -> None:
    logits, label = example()
    logits += 1e-3 * torch.arange(10)  # of tied logits the first would win
    place = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    permuted = torch.empty_like(logits).index_copy_(1, place, logits)
    assert assess((permuted, place[label])).numbers == pytest.approx(assess((logits, label)).numbers, rel=1e-9, abs=1e-12)


def test_always_right_has_no_auroc_and_the_rest_is_finite() -> None:
    label = torch.arange(30) % 10
    found = assess((1e4 * torch.nn.functional.one_hot(label).float(), label)).numbers
    assert math.isnan(found.pop("auroc"))
    assert all(map(math.isfinite, found.values()))
    assert found["ece"] == found["ece_mass"] == found["mce"] == found["brier"] == 0


def test_half_precision_is_read_as_it_is() -> None:
    logits, label = example()
    half = logits.clamp(-6e4, 6e4).half()
    assert assess((half, label)).numbers == assess((half.double(), label)).numbers


def test_without_labels_there_is_only_entropy() -> None:
    assessment = Assessment(10, labels=False)
    assessment.update(torch.zeros(7, 10))
    found = assessment.compute()
    assert found == ({"entropy": pytest.approx(math.log(10))}, None, None)


@pytest.mark.parametrize(
    ("logits", "label", "message"),
    [
        (torch.zeros(4, 9), torch.zeros(4).long(), r"shape \[4, 9\]; expected \[B,10\]: give a row per example"),
        (torch.zeros(10), torch.zeros(4).long(), r"shape \[10\]; expected \[B,10\]"),
        (torch.zeros(4, 10), torch.zeros(3).long(), r"labels are of shape \[3\]; expected \[4\]: .* or labels=False"),
        (torch.zeros(4, 10), torch.zeros(4, 10).long(), r"labels are of shape \[4, 10\]; expected \[4\]"),
        (torch.zeros(4, 10), None, r"labels are missing; expected \[4\]"),
    ],
)
def test_bad_shapes_are_refused(logits: Tensor, label: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Assessment(10).update(logits, label)
