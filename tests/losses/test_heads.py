"""A loss of one head sees that head's logits; the teacher's prediction is a label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

import kdx
from kdx.distiller import Distiller
from kdx.losses.ce import CE
from kdx.losses.dkd import DKD
from kdx.losses.hard import Hard
from kdx.losses.heads import AtHead
from kdx.losses.hint import Hint
from kdx.losses.kl import KL
from kdx.losses.objective import Objective, Term
from kdx.networks.features import FeatureTaps
from kdx.networks.network import Network
from kdx.run.folder import RunFolder
from kdx.teachers.teacher import OnlineTeacher
from kdx.training.step import step
from kdx.types import Batch, LossContext, Outputs, Progress

HALVES = (torch.float16, torch.bfloat16)
DEIT = ("deit_tiny_distilled_patch16_224", 10)
SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}


@pytest.mark.parametrize("num_classes", [2, 10])
def test_hard_labels_are_the_teachers_predictions(num_classes: int) -> None:
    student, teacher = torch.randn(2, 6, num_classes, dtype=torch.float64)
    expected = torch.stack([-(z.log_softmax(-1)[t.argmax()]) for z, t in zip(student, teacher, strict=True)])
    result = Hard()(Outputs(student, teacher))
    assert result.shape == (6,)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(Hard()(Outputs(student + 5, 1e4 * teacher - 7)), expected)  # only the order counts
    assert Hard.needs_teacher and not Hard.needs_temperature and not Hard.needs_label


def test_a_teacher_at_the_limit_of_certainty_is_a_hard_label() -> None:
    student, teacher = torch.randn(2, 6, 10, dtype=torch.float64)
    soft = KL()(Outputs(student, 1e6 * teacher, temperature=torch.tensor(1.0)))
    torch.testing.assert_close(Hard()(Outputs(student, teacher)), soft)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_it_is_finite_at_logits_of_ten_thousand_and_no_gradient_reaches_the_teacher(dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 5e3]], dtype=dtype, requires_grad=True)
    result = Hard()(Outputs(student, teacher))
    assert result.item() == student[0, 0].item() - student[0, 1].item()
    gradients = torch.autograd.grad(result.sum(), (student, teacher), allow_unused=True)
    assert gradients[0] is not None and gradients[0].isfinite().all() and gradients[1] is None


def test_the_loss_of_a_head_is_the_loss_with_its_logits() -> None:
    mean, head, teacher = torch.randn(3, 6, 10)
    label = torch.arange(6)
    outputs = Outputs(mean, teacher, label, temperature=torch.tensor(4.0), student_features={"head_dist": head.bfloat16()})
    for loss in (CE(0.1), KL(), DKD(), Hard()):
        expected = loss(Outputs(head.bfloat16(), teacher, label, temperature=torch.tensor(4.0)))
        torch.testing.assert_close(AtHead("head_dist", loss)(outputs), expected)
        assert not torch.allclose(expected, loss(outputs))
    outputs.mixed_target = torch.rand(6, 10).softmax(-1)
    expected = F.cross_entropy(head.bfloat16().float(), outputs.mixed_target, reduction="none")
    torch.testing.assert_close(AtHead("head_dist", CE())(outputs), expected)


@pytest.mark.parametrize("loss", [CE(), KL(), DKD(), Hard(), Hint({"student": "pooled", "teacher": "stage1"})])
def test_it_needs_what_its_loss_needs_and_the_head(loss: CE | KL | DKD | Hard | Hint) -> None:
    there = AtHead("head", loss)
    for name in ("needs_teacher", "needs_temperature", "needs_label", "needs_one_label", "min_classes", "too_few_classes"):
        assert getattr(there, name) == getattr(loss, name)
    assert there.student_features == ("head", *loss.student_features)
    assert there.teacher_features == loss.teacher_features


def test_a_module_that_is_no_head_is_refused_with_the_remedy() -> None:
    loss = AtHead("blocks", CE())
    with pytest.raises(ValueError, match=r"Module 'blocks' returns \[6, 12\] .*10 classes: set `head` .*head_dist"):
        loss.connect(LossContext(10, 100, student_features={"blocks": torch.Size([6, 12])}))


def test_it_connects_its_loss() -> None:
    loss = AtHead("head", Hint({"student": "pooled", "teacher": "pooled"}))
    shapes = {"head": torch.Size([10]), "pooled": torch.Size([4])}
    loss.connect(LossContext(10, 100, student_features=shapes, teacher_features={"pooled": torch.Size([6])}))
    assert [p.shape for p in loss.parameters()] == [(6, 4), (6,)]


def test_each_head_of_a_deit_learns_from_its_own_target_and_the_teacher_stays() -> None:
    student, teacher = Network(*DEIT, args=SMALL), Network("cifar_resnet8", 10)
    terms = {"label": Term(AtHead("head", CE())), "teacher": Term(AtHead("head_dist", Hard()))}
    objective = Objective(terms)
    distiller = Distiller(student, OnlineTeacher(teacher), None, objective.student_features)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    images, label = torch.rand(5, 3, 16, 16), torch.arange(5)
    objective.connect(distiller.loss_context(images, images, label, 5))
    result = step(distiller, objective, Batch(images, images, label), Progress(0.0, 0))

    heads = timm.create_model(DEIT[0], num_classes=10, **SMALL)  # timm's own training mode returns both
    heads.load_state_dict(student.model.state_dict())
    heads.set_distilled_training(True)
    first, second = heads.train()((images - 0.5) / 0.5)
    expected = F.cross_entropy(first, label) + F.cross_entropy(second, teacher(images).argmax(-1))
    torch.testing.assert_close(result.loss, expected)
    torch.testing.assert_close(result.outputs.student_logits, (first + second) / 2)
    result.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize("losses", ["deit", "deit_soft"])
def test_a_run_trains_both_heads_and_tests_their_mean(train: Callable[..., Path], losses: str) -> None:
    sizes = "+student.args={img_size: 32, patch_size: 8, embed_dim: 24, depth: 2, num_heads: 3}"
    network = ["network@student=timm", f"student.architecture={DEIT[0]}", sizes, "resolution.student=32"]
    folder = train("run", f"losses=[{losses}]", *network, "data=digits", "optimizer.lr=0.01", "trainer.max_epochs=20")
    run, curves = kdx.open_run(folder), RunFolder(folder).columns()
    for name in ("deit_label", "deit_teacher"):
        curve = [value for value in curves[f"train/loss_{name}"] if value == value]  # without NaN
        assert curve[-1] < curve[0]
    assert run.metrics["test/student/accuracy"] > 0.3  # chance is 0.1

    network = run.student().network
    taps = FeatureTaps(network.model, ("head", "head_dist"))
    logits, heads = network(torch.rand(3, 1, 32, 32)), taps.take()
    torch.testing.assert_close(logits, (heads["head"] + heads["head_dist"]) / 2)
    assert not torch.allclose(heads["head"], heads["head_dist"])
