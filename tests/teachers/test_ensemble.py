"""Ensembles: what members say is combined by name, each after its own resolution, normalization and calibration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from kdx.networks.network import Network
from kdx.teachers.ensemble import Combine, Ensemble, combine, disagreement
from kdx.teachers.teacher import OnlineTeacher


def said(members: int, classes: int, scale: float) -> Tensor:
    return scale * torch.randn(members, 6, classes, generator=torch.Generator().manual_seed(classes))


@pytest.mark.parametrize("scale", [1, 30, 1e4])
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("how", ["logits", "probs", "losses"])
def test_combination_is_the_mean_of_what_it_is_named_after(how: Combine, classes: int, scale: float) -> None:
    each = said(3, classes, scale)
    values = each.double().numpy()
    expected = values.mean(0) if how == "logits" else logsumexp(log_softmax(values, -1), axis=0) - np.log(3)
    torch.testing.assert_close(combine(each, how).double().numpy(), expected, rtol=1e-5, atol=1e-6 + 1e-7 * scale)


@pytest.mark.parametrize("how", ["logits", "probs"])
def test_members_that_agree_are_one(how: Combine) -> None:
    each = said(1, 10, 5).expand(4, -1, -1)
    torch.testing.assert_close(combine(each, how).softmax(-1), each[0].softmax(-1))
    assert disagreement(each).sum() == 0


def test_disagreement_is_the_share_of_pairs_that_decide_differently() -> None:
    votes = torch.tensor([[0, 0, 1], [0, 0, 2], [0, 1, 0]])  # members x examples
    each = torch.nn.functional.one_hot(votes, 3).float()
    torch.testing.assert_close(disagreement(each), torch.tensor([0, 2 / 3, 1]))


def member(seed: int, mean: float = 0.5, resolution: int | None = None, classes: int = 5) -> OnlineTeacher:
    torch.manual_seed(seed)
    return OnlineTeacher(Network("cifar_resnet8", classes, 3, [mean] * 3, [0.5] * 3), resolution)


def test_every_member_sees_its_resolution_and_divides_by_its_own_temperature() -> None:
    first, second = member(0), member(1, mean=0.2, resolution=12)
    first.calibration_temperature, second.calibration_temperature = 2.0, 0.5
    images, others = torch.rand(4, 3, 8, 8), {12: torch.rand(4, 3, 12, 12)}
    each = Ensemble({"a": first, "b": second}, "logits").each(images, others)
    with torch.no_grad():
        torch.testing.assert_close(each[0], first.network(images) / 2)
        torch.testing.assert_close(each[1], second.network(others[12]) / 0.5)
    answer = Ensemble({"a": first, "b": second}, "logits")(images, others)
    torch.testing.assert_close(answer, each.mean(0))


def test_members_without_images_of_their_own_take_those_given() -> None:
    teacher = member(0, resolution=12)
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(teacher(images), teacher(images, {10: torch.rand(4, 3, 10, 10)}))


def test_members_must_tell_the_same_classes_apart_and_be_several() -> None:
    with pytest.raises(ValueError, match=r"a 5, b 7\): use members with the same classes"):
        Ensemble({"a": member(0), "b": member(1, classes=7)})
    with pytest.raises(ValueError, match="at least two members"):
        Ensemble({"a": member(0)})


def test_size_and_fingerprint_are_of_all_members() -> None:
    first, second = member(0), member(1)
    both = Ensemble({"a": first, "b": second})
    assert both.num_parameters == 2 * first.num_parameters
    assert both.fingerprint not in (first.fingerprint, Ensemble({"a": first, "b": first}).fingerprint)
