"""Label smoothing is torch's, on mixed targets too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kdx.losses import functional
from kdx.losses.ce import CE
from kdx.types import Outputs


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_smoothing_equals_torch_with_labels_and_with_mixed_targets(smoothing: float, num_classes: int, scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    student = torch.randn(6, num_classes, generator=g, dtype=torch.float64) * scale
    label = torch.randint(num_classes, (6,), generator=g)
    one_hot = F.one_hot(label, num_classes).double()
    mixed = 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)
    for target, given in ((label, one_hot), (mixed, mixed)):
        expected = F.cross_entropy(student, target, reduction="none", label_smoothing=smoothing)
        result = CE(smoothing)(Outputs(student, mixed_target=given))
        assert result.shape == (6,)
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_classes", [2, 10, 21_841])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_labels_give_the_bits_of_one_hot_targets(smoothing: float, num_classes: int, scale: float) -> None:
    g = torch.Generator().manual_seed(1)
    student = (torch.randn(6, num_classes, generator=g) * scale).requires_grad_()
    label = torch.randint(num_classes, (6,), generator=g)
    dense = Outputs(student, mixed_target=F.one_hot(label, num_classes).float())
    found, expected = CE(smoothing)(Outputs(student, label=label)), CE(smoothing)(dense)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(loss.mean(), student)[0] for loss in (found, expected)))


def test_a_perfect_and_certain_student_pays_for_the_smoothing_alone() -> None:
    student, target = torch.tensor([[20.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert functional.cross_entropy(student, target).item() == pytest.approx(0, abs=1e-7)
    assert functional.cross_entropy(student, target, 0.2).item() == pytest.approx(3 * 0.05 * 20)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5, float("nan")])
def test_smoothing_is_at_least_0_and_below_1(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        CE(label_smoothing=smoothing)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_in_single(dtype: torch.dtype) -> None:
    student = torch.linspace(-1e4, 1e4, 12).reshape(4, 3).to(dtype).requires_grad_()
    result = CE(0.1)(Outputs(student, mixed_target=torch.eye(3)[[0, 1, 2, 0]]))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, CE(0.1)(Outputs(student.float(), mixed_target=torch.eye(3)[[0, 1, 2, 0]])))
    assert torch.autograd.grad(result.sum(), student)[0].isfinite().all()
