"""OFA's target is the authors', its exits lead from every layout to logits, and it needs the teacher's logits alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor, nn

from kdx.distiller import Distiller
from kdx.losses import functional
from kdx.losses.exits import MapExit, TokenExit, exit_from
from kdx.losses.objective import Objective, Term
from kdx.losses.ofa import OFA, ofa
from kdx.networks.network import Network
from kdx.teachers.teacher import OnlineTeacher
from kdx.temperatures.schedules import Constant
from kdx.training.step import step
from kdx.types import Batch, LossContext, Outputs, Progress, TemperaturePair

HALVES = (torch.float16, torch.bfloat16)
Array = NDArray[np.float64]


def draw(num_classes: int, scale: float, batch: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """float64 logits of student and teacher, and labels."""
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.standard_normal((batch, num_classes)) * scale) for _ in range(2))
    return student, teacher, torch.from_numpy(rng.integers(num_classes, size=batch))


def reference(student: Array, teacher: Array, label: Array, temperature: float, gamma: float) -> list[float]:
    """The loss, example by example and class by class."""
    log_q, log_p = (log_softmax(z / temperature, axis=1) for z in (student, teacher))
    losses = []
    for q, p, y in zip(log_q, np.exp(log_p), label, strict=True):
        weights = [(1 + p[k]) ** gamma - 1 if k == y else p[k] ** gamma for k in range(len(p))]
        losses.append(-(temperature**2) * float(np.dot(weights, q)))
    return losses


@pytest.mark.parametrize("gamma", [1.0, 1.5])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_it_equals_numpy(scale: float, num_classes: int, temperature: float, gamma: float) -> None:
    student, teacher, label = draw(num_classes, scale)
    expected = reference(student.numpy(), teacher.numpy(), label.numpy(), temperature, gamma)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        result = ofa(student.to(dtype), teacher.to(dtype), label, temperature, gamma)
        assert result.shape == (6,) and result.dtype == dtype
        np.testing.assert_allclose(result.numpy(), expected, tolerance, tolerance * temperature**2)


def test_at_gamma_one_it_is_kl_and_the_teachers_entropy_whatever_the_label() -> None:
    student, teacher, label = draw(10, 3)
    log_p = (teacher / 4).log_softmax(-1)
    expected = functional.kl(student, teacher, 4.0) - 16 * (log_p.exp() * log_p).sum(-1)
    torch.testing.assert_close(ofa(student, teacher, label, 4.0), expected)
    torch.testing.assert_close(ofa(student, teacher, label.roll(1), 4.0), expected)
    same = teacher.clone().requires_grad_()
    gradient = torch.autograd.grad(ofa(same, teacher, label, 4.0).sum(), same)[0]
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_a_larger_gamma_moves_weight_from_the_other_classes_to_the_label() -> None:
    label = torch.tensor([0])
    teacher = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()
    found = [(1.6**2 - 1), 0.3**2, 0.1**2]
    for k, weight in enumerate(found):
        student = torch.zeros(1, 3, dtype=torch.float64)
        student[0, k] = -1e9  # so that only this class has a loss
        assert ofa(student, teacher, label, 1.0, 2.0).item() == pytest.approx(1e9 * weight, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_it_is_finite_at_logits_of_ten_thousand_whatever_the_label(label: int, dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 5e3]], dtype=dtype)
    tau = torch.tensor(1.0, requires_grad=True)
    result = ofa(student, teacher, torch.tensor([label]), tau, 1.5)
    expected = reference(*(z.detach().double().numpy() for z in (student, teacher)), np.array([label]), 1.0, 1.5)
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-5)
    assert all(g.isfinite().all() for g in torch.autograd.grad(result.sum(), (student, tau)))


def test_constants_and_the_order_of_classes_change_nothing() -> None:
    student, teacher, label = draw(10, 3)
    order = torch.from_numpy(np.random.default_rng(1).permutation(10))
    place = order.argsort()[label]
    moved = ofa(student[:, order] + 5, teacher[:, order] - 7, place, 4.0, 1.5)
    torch.testing.assert_close(moved, ofa(student, teacher, label, 4.0, 1.5))


@pytest.mark.parametrize("shape", [(), (3, 1)])
def test_gradients_are_the_numerical_ones(shape: tuple[int, ...]) -> None:
    student, teacher, label = draw(5, 2, batch=3)
    tau = torch.full(shape, 2.5, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (student, teacher, tau, tau + 1)]
    assert torch.autograd.gradcheck(lambda s, t, a, b: ofa(s, t, label, TemperaturePair(a, b, a * b), 1.5), inputs)


def test_without_exits_it_is_the_loss_of_the_logits_and_a_mixed_image_has_the_larger_label() -> None:
    student, teacher, label = draw(10, 3)
    loss, outputs = OFA(1.5), Outputs(student, teacher, label, temperature=torch.tensor(4.0))
    loss.connect(LossContext(10, 100))
    torch.testing.assert_close(loss(outputs), ofa(student, teacher, label, 4.0, 1.5))
    hot = torch.eye(10, dtype=torch.float64)
    outputs.mixed_target = 0.3 * hot[label] + 0.7 * hot[(label + 1) % 10]
    torch.testing.assert_close(loss(outputs), ofa(student, teacher, (label + 1) % 10, 4.0, 1.5))
    assert loss.student_features == loss.teacher_features == () and not list(loss.parameters())
    assert OFA.needs_teacher and OFA.needs_temperature and OFA.needs_label and not OFA.needs_one_label


def test_every_exit_adds_the_loss_of_its_logits() -> None:
    student, teacher, label = (value.float() if value.is_floating_point() else value for value in draw(10, 3))
    features = {"stage-2": torch.randn(6, 4, 8, 8), "stage-1": torch.randn(6, 8, 4, 4), "conv": torch.randn(6, 3, 8, 8)}
    loss = OFA(1.5, "stages")
    loss.connect(LossContext(10, 100, student_features={path: value.shape[1:] for path, value in features.items()}))
    outputs = Outputs(student, teacher, label, temperature=torch.tensor(2.0), student_features=features)
    early = [leave(features[path]) for path, leave in zip(("stage-2", "stage-1"), loss.exits, strict=True)]
    expected = sum(ofa(logits, teacher, label, 2.0, 1.5) for logits in (student, *early))
    torch.testing.assert_close(loss(outputs), expected)


def test_a_student_without_stages_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"no stages of the student: set `exits` to names of its modules, or exits=\[\]"):
        OFA(exits="stages").connect(LossContext(10, 100, student_features={"pooled": torch.Size([4])}))


def test_a_map_is_halved_by_separable_convolutions() -> None:
    """By hand, with the weights of the exit and functions of torch."""
    found, feature = MapExit(4, 16, 10, 2), torch.randn(3, 4, 8, 8)
    x, weights = feature, dict(found.named_parameters())
    for block in "01":
        for layer, stride in ((0, 2), (4, 1)):
            depthwise, pointwise = (weights[f"{block}.{layer + i}.weight"] for i in (0, 1))
            x = F.conv2d(F.conv2d(x, depthwise, stride=stride, padding=1, groups=x.shape[1]), pointwise)
            x = F.batch_norm(x, None, None, training=True).relu()
        assert x.shape == ((3, 8, 4, 4) if block == "0" else (3, 16, 2, 2))
    torch.testing.assert_close(found(feature), F.linear(x.mean((2, 3)), weights["4.weight"], weights["4.bias"]))


def test_the_last_map_is_projected_and_a_pooled_feature_is_classified() -> None:
    last, feature = MapExit(4, 16, 10, 0), torch.randn(3, 4, 8, 8)
    convolved = F.conv2d(feature, last[0].weight, last[0].bias).mean((2, 3))
    torch.testing.assert_close(last(feature), F.linear(convolved, last[3].weight, last[3].bias))
    pooled = exit_from(torch.Size([4]), 16, 10, 2)
    assert isinstance(pooled, nn.Linear) and pooled(torch.randn(3, 4)).shape == (3, 10)


@pytest.mark.parametrize(
    ("tokens", "extra", "merges"), [(197, 1, 1), (198, 2, 1), (196, 0, 1), (65, 1, 0), (785, 1, 2), (5, 1, 0), (226, 1, 0)]
)
def test_tokens_are_merged_down_to_a_small_grid_and_those_in_front_are_kept(tokens: int, extra: int, merges: int) -> None:
    found = exit_from(torch.Size([tokens, 12]), 99, 10, 2)
    assert isinstance(found, TokenExit)
    assert (found.extra, len(found.merges), len(found.blocks)) == (extra, merges, 2)
    assert len(exit_from(torch.Size([tokens, 12]), 99, 10, 0).blocks) == 1
    feature = torch.randn(2, tokens, 12)
    assert found(feature).shape == (2, 10)
    found.blocks, found.classify = nn.Identity(), nn.Identity()
    read = feature[:, :extra].mean(1) if extra else None
    if read is not None:
        torch.testing.assert_close(found(feature), read)


def test_two_by_two_neighbors_are_merged() -> None:
    found = TokenExit(torch.Size([196, 2]), 3, 1)
    tokens = torch.zeros(1, 14, 14, 2)
    tokens[0, 2:4, 4:6] = torch.randn(2, 2, 2)
    seen = []
    found.merges[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found(tokens.flatten(1, 2))
    (merged,) = seen
    assert merged.shape == (1, 49, 8)
    busy = merged[0].ne(0).any(-1).nonzero().flatten().tolist()
    assert busy == [1 * 7 + 2]
    assert sorted(merged[0, busy[0]].tolist()) == sorted(tokens[0, 2:4, 4:6].flatten().tolist())


@pytest.mark.parametrize("width", [12, 6, 5])
def test_any_width_has_heads_and_gradients(width: int) -> None:
    found, tokens = TokenExit(torch.Size([17, width]), 3, 1), torch.randn(2, 17, width)
    found(tokens).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())


NETWORKS = {
    "cifar_resnet8": {},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 4, "num_heads": 3},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3},
    "swin_tiny_patch4_window7_224": {"img_size": 32, "embed_dim": 12, "window_size": 2, "depths": (1, 1, 1, 1)},
}


@pytest.mark.parametrize("architecture", NETWORKS)
def test_exits_of_real_students_learn_from_a_frozen_teacher(architecture: str) -> None:
    student, teacher = Network(architecture, 10, args=NETWORKS[architecture]), Network("cifar_resnet8", 10)
    objective = Objective({"ofa": Term(OFA(exits="stages"))})
    distiller = Distiller(student, OnlineTeacher(teacher), Constant(1.0), objective.student_features)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    images, label = torch.rand(4, 3, 32, 32), torch.arange(4)
    objective.connect(distiller.loss_context(images, images, label, 4))
    loss = objective.terms["ofa"].loss
    assert isinstance(loss, OFA) and len(loss.exits) == len(loss.paths) >= 2
    step(distiller, objective, Batch(images, images, label), Progress(0.0, 0)).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
