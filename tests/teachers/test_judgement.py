"""A teacher that cannot be right is found on val; one that may be right is not refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.networks.network import Network
from kdx.networks.normalization import Normalization
from kdx.teachers.calibration import Calibration, TemperatureScaling
from kdx.teachers.calibration_maps import TemperatureMap
from kdx.teachers.judgement import judge, judge_normalization, undetermined
from kdx.teachers.teacher import OnlineTeacher


def answering(predicted: Tensor, num_classes: int = 10) -> Tensor:
    """Logits with these predictions."""
    return 5.0 * F.one_hot(predicted, num_classes).float()


def labels(count: int, num_classes: int = 10) -> Tensor:
    return torch.arange(count) % num_classes


SHIFTED = (labels(300) + 1) % 10
RARE = torch.cat([torch.zeros(90), torch.arange(1, 11) % 10]).long()  # 91 % of class 0
HALF_RIGHT = torch.where(torch.arange(300) % 2 == 0, labels(300), SHIFTED)


@pytest.mark.parametrize(
    ("predicted", "label", "kind", "certain"),
    [
        (SHIFTED, labels(300), "teacher_at_chance", True),  # as with classes in another order
        (torch.zeros(300).long(), labels(300), "teacher_is_constant", True),
        (torch.cat([torch.ones(20), torch.zeros(80)]).long(), RARE, "teacher_below_majority", False),
        (SHIFTED[:12], labels(12), "teacher_at_chance", False),  # 12 images show little
        (SHIFTED[:5], labels(5), None, False),
        (HALF_RIGHT, labels(300), None, False),
        (RARE * 0, RARE * 0, None, False),  # one class only: constant answers are right
    ],
)
def test_what_is_wrong_with_a_teacher(predicted: Tensor, label: Tensor, kind: str | None, certain: bool) -> None:
    faults = judge(predicted, label, 10, "The teacher")
    assert [fault.kind for fault in faults] == ([kind] if kind else [])
    assert all(fault.certain is certain for fault in faults)


def test_a_guessing_teacher_of_two_classes_is_found_and_a_weak_one_is_not() -> None:
    label, generator = labels(200, 2), torch.Generator().manual_seed(0)
    guessed = torch.randint(0, 2, (200,), generator=generator)
    wrong = torch.where(torch.arange(200) % 20 == 0, label, 1 - label)
    weak = torch.where(torch.arange(200) % 5 < 2, 1 - label, label)
    assert judge(wrong, label, 2, "T")[0].certain
    assert [fault.certain for fault in judge(guessed, label, 2, "T")] in ([], [True])
    assert judge(weak, label, 2, "T") == []


OTHERS = [
    Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "of the data set"),
    Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "the default of resnet18"),
]


def test_another_normalization_is_proposed_only_if_it_is_better() -> None:
    teacher = OnlineTeacher(Network("cifar_resnet8", 10, 3), alternatives=OTHERS)
    right, half = labels(300), HALF_RIGHT
    [fault] = judge_normalization(half, torch.stack([half, right], 1), labels(300), "The teacher", teacher)
    assert fault.certain and "0.500, and 1.000 with teacher.network.mean=[0.485, 0.456, 0.406]" in fault.text
    assert fault.text.endswith("teacher.network.std=[0.229, 0.224, 0.225], the default of resnet18: set these")
    for other in (half, right):
        assert judge_normalization(right, torch.stack([half, other], 1), labels(300), "The teacher", teacher) == []


def test_a_teacher_is_tried_with_the_other_normalizations() -> None:
    torch.manual_seed(0)
    images, network = torch.rand(4, 3, 8, 8), Network("cifar_resnet8", 10, 3, mean=[0.5], std=[0.25])
    found = OnlineTeacher(network, alternatives=OTHERS).normalized_otherwise(images)
    for i, other in enumerate(OTHERS):
        expected = Network("cifar_resnet8", 10, 3, other.mean, other.std)
        expected.model.load_state_dict(network.model.state_dict())
        torch.testing.assert_close(found[:, i], expected.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("logits", "label", "doubt"),
    [
        (answering(labels(300)), labels(300), "no finite temperature is optimal (0 of 300 val images are wrong)"),
        (answering(labels(3)), labels(3), "3 val images are too few"),
        (answering(SHIFTED), labels(300), "no finite temperature is optimal (300 of 300"),
        (answering(torch.where(torch.arange(300) == 7, SHIFTED, labels(300))), labels(300), None),
    ],
)
def test_a_calibration_that_val_does_not_determine_is_not_made(logits: Tensor, label: Tensor, doubt: str | None) -> None:
    found = TemperatureScaling().calibrate(logits, label)
    if doubt is None:
        assert found == Calibration(TemperatureMap(TemperatureScaling().fit(logits, label))) and undetermined(found, "T") == []
    else:
        assert found.temperature == 1.0 and doubt in (found.doubt or "") and doubt in undetermined(found, "T")[0].text


def test_the_standard_error_is_the_curvature_of_the_nll() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(500, 10, generator=generator, dtype=torch.float64)
    label = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    scaling, step = TemperatureScaling(), 1e-3
    at = scaling.fit(logits, label)

    def nll(shift: float) -> Tensor:
        return F.cross_entropy(logits / (at * torch.tensor(shift, dtype=torch.float64).exp()), label, reduction="sum")

    curvature = (nll(step) - 2 * nll(0) + nll(-step)) / step**2
    assert scaling._standard_error(logits, label, at) == pytest.approx(curvature.rsqrt().item(), rel=1e-5)
