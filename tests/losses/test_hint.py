"""The hint loss is the squared error of a 1x1 convolution that learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.losses.hint import Hint
from kdx.losses.projectors import positions
from kdx.types import LossContext, Outputs


def connected(*pairs: tuple[Tensor, Tensor]) -> tuple[Hint, Outputs]:
    """The loss of these pairs of features, connected, and outputs that hold them."""
    names = [str(i) for i in range(len(pairs))]
    student, teacher = (dict(zip(names, side, strict=True)) for side in zip(*pairs, strict=True))
    loss = Hint({"student": names, "teacher": names})
    shapes = ({name: feature.shape[1:] for name, feature in side.items()} for side in (student, teacher))
    loss.connect(LossContext(10, 100, None, *shapes))
    return loss, Outputs(pairs[0][0], student_features=student, teacher_features=teacher)


@pytest.mark.parametrize(("student_side", "teacher_side"), [(4, 4), (8, 4), (4, 8), (7, 3)])
def test_it_is_the_mean_square_of_what_a_convolution_misses(student_side: int, teacher_side: int) -> None:
    student, teacher = torch.randn(3, 5, student_side, student_side), torch.randn(3, 6, teacher_side, teacher_side)
    loss, outputs = connected((student, teacher))
    layer = loss.regressors[0]
    side = min(student_side, teacher_side)
    predicted = F.conv2d(F.adaptive_avg_pool2d(student, side), layer.weight[..., None, None], layer.bias)
    expected = F.mse_loss(predicted, F.adaptive_avg_pool2d(teacher, side), reduction="none").mean((1, 2, 3))
    assert loss(outputs).shape == (3,)
    torch.testing.assert_close(loss(outputs), expected)


def test_tokens_are_predicted_from_tokens_of_another_width() -> None:
    student, teacher = torch.randn(3, 17, 5), torch.randn(3, 17, 6)
    loss, outputs = connected((student, teacher))
    torch.testing.assert_close(loss(outputs), (loss.regressors[0](student) - teacher).square().mean((1, 2)))
    loss, outputs = connected((torch.randn(3, 4, 2, 2), teacher))  # a CNN learns from a transformer
    assert loss(outputs).shape == (3,)


def test_several_pairs_are_summed_each_with_its_own_regressor() -> None:
    pairs = [(torch.randn(3, 4, 2, 2), torch.randn(3, 5, 2, 2)), (torch.randn(3, 6), torch.randn(3, 7))]
    loss, outputs = connected(*pairs)
    single = [
        (regressor(positions(s)) - positions(t)).square().mean((1, 2))
        for regressor, (s, t) in zip(loss.regressors, pairs, strict=True)
    ]
    torch.testing.assert_close(loss(outputs), single[0] + single[1])


def test_the_regressor_learns_to_predict_what_is_a_linear_function() -> None:
    torch.manual_seed(0)
    student = torch.randn(64, 4, 3, 3)
    teacher = torch.einsum("bchw,dc->bdhw", student, torch.randn(6, 4)) + 2
    loss, outputs = connected((student, teacher))
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(outputs).mean()
        value.backward()
        return value

    before = closure().item()
    optimizer.step(closure)
    assert closure().item() < 1e-6 < before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_read_in_single_under_autocast(dtype: torch.dtype) -> None:
    student, teacher = (torch.randn(3, 5, 2, 2) * 1e4).to(dtype).requires_grad_(), (torch.randn(3, 6, 2, 2) * 1e4).to(dtype)
    loss, outputs = connected((student, teacher))
    _, single = connected((student.float(), teacher.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(outputs)
    torch.testing.assert_close(result, loss(single))
    result.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()


def test_gradients_are_the_numerical_ones() -> None:
    student, teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(2, 4, 2, 2, dtype=torch.float64)
    loss, _ = connected((student, teacher))
    loss.double()
    inputs = [student.requires_grad_(), *loss.parameters()]
    outputs = Outputs(student, student_features={"0": student}, teacher_features={"0": teacher})
    assert torch.autograd.gradcheck(lambda *_: loss(outputs), inputs)
