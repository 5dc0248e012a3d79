"""VID is a Gaussian's negative log-likelihood, from three 1x1 convolutions and a learned variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor

from kdx.config.check import conf_dir
from kdx.config.schema import RunConfig
from kdx.experiment import build
from kdx.losses.vid import VID, gaussian_nll
from kdx.networks.features import FeatureTaps, shapes
from kdx.networks.network import Network
from kdx.types import LossContext, Outputs


def connected(student: Tensor, teacher: Tensor, **options: float) -> tuple[VID, Outputs]:
    """The loss of a pair of features, connected, and outputs that hold them."""
    loss = VID({"student": "f", "teacher": "f"}, **options)
    loss.connect(LossContext(10, 100, None, {"f": student.shape[1:]}, {"f": teacher.shape[1:]}))
    return loss, Outputs(student, student_features={"f": student}, teacher_features={"f": teacher})


def test_the_likelihood_is_scipys_without_the_constant() -> None:
    rng = np.random.default_rng(0)
    mean, value, variance = rng.standard_normal((3, 7, 4)), rng.standard_normal((3, 7, 4)) * 5, rng.uniform(0.1, 5, 4)
    expected = -norm.logpdf(value, mean, np.sqrt(variance)).mean((1, 2)) - math.log(2 * math.pi) / 2
    result = gaussian_nll(*(torch.from_numpy(a) for a in (mean, variance, value)))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(("student_side", "teacher_side"), [(4, 4), (8, 4), (4, 8)])
def test_it_is_the_likelihood_of_the_teachers_map_by_convolutions(student_side: int, teacher_side: int) -> None:
    student, teacher = torch.randn(3, 5, student_side, student_side), torch.randn(3, 6, teacher_side, teacher_side)
    loss, outputs = connected(student, teacher)
    mean = F.adaptive_avg_pool2d(student, 4)
    first, _, second, _, third = loss.posteriors[0].mean
    for i, layer in enumerate((first, second, third)):
        mean = F.conv2d(mean.relu() if i else mean, layer.weight[..., None, None])
    target = F.adaptive_avg_pool2d(teacher, 4)
    expected = -norm.logpdf(target.numpy(), mean.detach().numpy(), math.sqrt(5)).mean((1, 2, 3)) - math.log(2 * math.pi) / 2
    assert loss(outputs).shape == (3,)
    np.testing.assert_allclose(loss(outputs).detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("variance", "floor"), [(5.0, 1e-5), (0.5, 0.1), (1.0, 1e-5)])
def test_the_variance_starts_as_told_and_never_falls_below_its_floor(variance: float, floor: float) -> None:
    loss, _ = connected(torch.randn(2, 3), torch.randn(2, 4), variance=variance, floor=floor)
    posterior = loss.posteriors[0]
    torch.testing.assert_close(posterior(torch.randn(2, 1, 3))[1], torch.full((4,), variance))
    with torch.no_grad():
        posterior.raw_variance.fill_(-1e4)
    assert posterior(torch.randn(2, 1, 3))[1].tolist() == pytest.approx([floor] * 4)


def test_a_variance_below_its_floor_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="raise variance"):
        VID({"student": "f", "teacher": "f"}, variance=0.1, floor=0.2)


def test_the_variance_learns_how_far_off_the_mean_is() -> None:
    torch.manual_seed(0)
    student, teacher = torch.zeros(512, 3), torch.randn(512, 2) * torch.tensor([0.5, 3.0])
    loss, outputs = connected(student, teacher)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss(outputs).mean().backward()
        optimizer.step()
    expected = teacher.square().mean(0)  # the mean of a student that says nothing is 0
    torch.testing.assert_close(loss.posteriors[0](student[:, None])[1].detach(), expected, rtol=0.02, atol=0)


def test_several_pairs_and_tokens_are_summed() -> None:
    loss = VID({"student": ["a", "b"], "teacher": ["a", "b"]})
    student, teacher = (
        {"a": torch.randn(2, 17, 5), "b": torch.randn(2, 3)},
        {"a": torch.randn(2, 17, 6), "b": torch.randn(2, 4)},
    )
    loss.connect(LossContext(10, 100, None, *({k: v.shape[1:] for k, v in side.items()} for side in (student, teacher))))
    single = [
        gaussian_nll(*posterior(s.reshape(2, -1, s.shape[-1])), t.reshape(2, -1, t.shape[-1]))
        for posterior, s, t in zip(loss.posteriors, student.values(), teacher.values(), strict=True)
    ]
    outputs = Outputs(student["b"], student_features=student, teacher_features=teacher)
    torch.testing.assert_close(loss(outputs), single[0] + single[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_read_in_single_under_autocast(dtype: torch.dtype) -> None:
    student, teacher = (torch.randn(3, 5, 2, 2) * 1e4).to(dtype).requires_grad_(), (torch.randn(3, 6, 2, 2) * 1e4).to(dtype)
    loss, outputs = connected(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(outputs)
    single = Outputs(student, student_features={"f": student.float()}, teacher_features={"f": teacher.float()})
    torch.testing.assert_close(result, loss(single))
    result.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()


def test_gradients_are_the_numerical_ones() -> None:
    student, teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(2, 4, 2, 2, dtype=torch.float64)
    loss, outputs = connected(student, teacher)
    loss.double()
    assert torch.autograd.gradcheck(lambda *_: loss(outputs), [student.requires_grad_(), *loss.parameters()])


COUNTS = {"cifar_vgg8_bn": 4, "cifar_vgg13_bn": 4, "cifar_mobilenetv2": 4, "cifar_resnet50": 4}  # others: 3
PAIRS = sorted((conf_dir() / "pair").glob("[!b]*.yaml"))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda path: path.stem)
def test_the_maps_are_those_of_the_official_code(config: Callable[..., RunConfig], pair: Path) -> None:
    """feats[1:-1] of both networks: four of VGG, MobileNetV2 and ResNet-50, three of the others."""
    cfg = config("experiment=ctkd_cifar100", f"pair={pair.stem}", "losses=[ctkd/vid]", "data.root=somewhere")
    assert cfg.teacher is not None
    loss, images = build.make(cfg.losses["vid"], "losses.vid").loss, torch.zeros(2, 3, 32, 32)
    found = {}
    for role, node in (("student", cfg.student), ("teacher", cfg.teacher.architecture)):
        network = Network(node["architecture"], 100, 3)
        found[role] = shapes(network, FeatureTaps(network.model, getattr(loss, f"{role}_features")), images)
        assert len(found[role]) == COUNTS.get(node["architecture"], 3)
    context = LossContext(100, 8, student_features=found["student"], teacher_features=found["teacher"])
    pairs = loss.shapes(context)
    assert len(pairs) == len(found["student"]) == len(found["teacher"])
    assert [student for student, _ in pairs] == list(found["student"].values())
