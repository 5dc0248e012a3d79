"""What all losses of features share: pairs of paths, single precision under autocast, good refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdx.losses.features import FeatureLoss
from kdx.types import LossContext, Outputs


class Products(FeatureLoss):
    """The sum of the products of pooled features, by a matrix product."""

    def compare(self, outputs: Outputs) -> Tensor:
        return torch.stack([(student @ teacher.T).trace() for student, teacher in self.pairs(outputs)]).sum()


def test_pairs_come_in_the_order_of_the_paths() -> None:
    loss = Products({"student": ["a", "b"], "teacher": ["b", "c"]})
    a, b, c = torch.randn(3, 2, 4)
    outputs = Outputs(a, student_features={"a": a, "b": b}, teacher_features={"b": -b, "c": c})
    assert [
        (torch.equal(s, x), torch.equal(t, y)) for (s, t), (x, y) in zip(loss.pairs(outputs), [(a, -b), (b, c)], strict=True)
    ]
    assert loss(outputs).item() == pytest.approx(float((a * -b).sum() + (b * c).sum()), rel=1e-5)
    shapes = {"student_features": {"a": a.shape, "b": b.shape}, "teacher_features": {"b": b.shape, "c": c.shape}}
    assert loss.shapes(LossContext(2, 2, **shapes)) == [(a.shape, b.shape), (b.shape, c.shape)]


def test_it_asks_for_its_paths_and_for_a_teacher() -> None:
    loss = Products({"student": "pooled", "teacher": ["stage-1"]})
    assert (loss.student_features, loss.teacher_features) == (("pooled",), ("stage-1",))
    assert loss.needs_teacher and not loss.needs_temperature


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_compared_in_single_precision_even_under_autocast(dtype: torch.dtype) -> None:
    feature = (torch.randn(4, 300) * 10).to(dtype)
    outputs = Outputs(feature, student_features={"f": feature}, teacher_features={"f": feature})
    loss = Products({"student": "f", "teacher": "f"})
    expected = feature.float().square().sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (feature.float() @ feature.float().T).dtype == torch.bfloat16  # what it would be otherwise
        assert loss(outputs).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"student": "pooled"}, "set features.student and features.teacher"),
        ({"student": "pooled", "techer": "pooled"}, "set features.student and features.teacher"),
        ({"student": ["stage1", "stage2"], "teacher": "stage1"}, "2 student paths and 1 teacher paths"),
        ({"student": [], "teacher": []}, "set the same number of both"),
    ],
)
def test_paths_that_do_not_pair_are_refused(features: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Products(features)
