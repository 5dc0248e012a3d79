"""The step is the same in plain PyTorch and in Lightning, and refuses tensors of wrong shapes by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kdx.cli.app import FAILED, report
from kdx.cli.arguments import Arguments
from kdx.distiller import Cohort, Distiller
from kdx.losses.kl import KL
from kdx.losses.objective import Loss, Objective, Term
from kdx.networks.network import Network
from kdx.ranges import ShapeError
from kdx.teachers.teacher import OnlineTeacher
from kdx.temperatures.base import Temperature
from kdx.temperatures.schedules import Constant
from kdx.training.module import DistillationModule
from kdx.training.optimizers.schedules import ConstantLr
from kdx.training.step import forward, step
from kdx.types import Batch, Outputs, Progress, TemperaturePair, TemperatureValue

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

import plain_steps

PROGRESS = Progress(0.5, 3)
READING_LIST = {  # of one training step, in kdx/README.md; architectures (kdx/networks/cifar, or timm's) are not on it
    "training/step.py",
    "types.py",
    "distiller.py",
    "networks/network.py",
    "teachers/teacher.py",
    "teachers/calibration_maps.py",
    "temperatures/schedules.py",
    "losses/objective.py",
    "losses/kl.py",
    "losses/ce.py",
    "losses/functional.py",
}


class Recorded(DistillationModule):
    """Keeps the loss of each step."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.__dict__.setdefault("losses", []).append(loss.item())
        return loss


def in_lightning(kind: str, folder: Path) -> list[float]:
    distiller, objective, batches = plain_steps.make(kind)
    module = Recorded(distiller, objective, partial(torch.optim.SGD, lr=plain_steps.LR), ConstantLr())
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(module, loader, loader)
    losses: list[float] = module.__dict__["losses"]
    return losses


def test_ten_plain_steps_need_no_lightning_and_give_the_losses_of_the_module(tmp_path: Path) -> None:
    file = Path(HERE) / "plain_steps.py"
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True, cwd=tmp_path)
    plain = json.loads(done.stdout)
    assert not plain["lightning"]
    for kind in plain_steps.KINDS:
        assert plain["losses"][kind] == in_lightning(kind, tmp_path), kind
        assert len(set(plain["losses"][kind])) == plain_steps.STEPS


def test_the_reading_list_of_a_step_has_eleven_files() -> None:
    distiller, objective, batches = plain_steps.make("teacher")
    distiller.temperature = Constant(10.0)
    entered = set[str]()

    def enter(frame: FrameType, event: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and "/kdx/" in path:
            entered.add(path.rpartition("/kdx/")[2])

    sys.setprofile(enter)
    try:
        step(distiller, objective, batches[0], PROGRESS)
    finally:
        sys.setprofile(None)
    assert {path for path in entered if not path.startswith("networks/cifar/")} == READING_LIST


def test_the_page_of_the_step_is_short() -> None:
    from kdx.training import step as page

    assert len(Path(str(page.__file__)).read_text().splitlines()) < 150


def test_the_loss_of_a_cohort_is_the_sum_of_all_and_the_numbers_name_each() -> None:
    distiller, objective, batches = plain_steps.make("cohort")
    result = step(distiller, objective, batches[0], PROGRESS)
    numbers = {name: value.detach() for name, value in result.numbers.items()}
    assert list(numbers) == ["loss", "loss_kl", "loss_ce", "loss_peer_a", "loss_peer_b", "temperature", "disagreement"]
    torch.testing.assert_close(result.loss.detach(), numbers["loss"] + numbers["loss_peer_a"] + numbers["loss_peer_b"])
    torch.testing.assert_close(numbers["loss"], 0.5 * numbers["loss_kl"] + 0.5 * numbers["loss_ce"])
    assert result.outputs.temperature is not None and numbers["temperature"].item() == 8 - 7 * PROGRESS.fraction


class Mine(Temperature):
    """A temperature that a user wrote."""

    def __init__(self, rule: Callable[[Tensor], TemperatureValue]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, progress: Progress) -> TemperatureValue:
        return self.rule(student_logits)


class Other(Mine):
    """A sibling."""


def square_batch() -> Batch:
    """As many examples as classes: what is [B] would be broadcast over the classes."""
    label = torch.arange(5)
    return Batch(torch.rand(5, 3, 8, 8), torch.rand(5, 3, 8, 8), label, torch.eye(5)[label])


def with_temperature(temperature: Temperature) -> Distiller:
    return Distiller(Network("cifar_resnet8", 5), OnlineTeacher(Network("cifar_resnet8", 5)), temperature)


ONE = torch.ones(())
TEMPERATURES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "B": (lambda z: z.std(-1), r"returned shape \[5\]; expected \[\] or \[5, 1\] .*unsqueeze\(-1\)"),
    "BK": (lambda z: z, r"returned shape \[5, 5\]; expected \[\] or \[5, 1\]"),
    "1": (lambda z: z.new_ones(1), r"returned shape \[1\]; expected \[\] or \[5, 1\]"),
    "a number": (lambda z: 4.0, r"returned a float; expected \[\] or \[5, 1\] .*new_tensor"),
    "a pair": (lambda z: TemperaturePair(ONE, z.std(-1), ONE), r"returned shape \[5\] as student; expected"),
    "a square": (lambda z: TemperaturePair(ONE, ONE, z.std(-1)), r"returned shape \[5\] as squared; expected"),
}


@pytest.mark.parametrize("kind", [Mine, Other])
@pytest.mark.parametrize("case", TEMPERATURES)
def test_a_temperature_of_another_shape_is_refused_by_name(kind: type[Mine], case: str) -> None:
    rule, message = TEMPERATURES[case]
    with pytest.raises(ShapeError, match=f"temperature: {kind.__name__} {message}"):
        forward(with_temperature(kind(rule)), square_batch(), PROGRESS)


@pytest.mark.parametrize("rule", [lambda z: ONE, lambda z: z.std(-1, keepdim=True), lambda z: TemperaturePair(ONE, ONE, ONE)])
def test_temperatures_that_fit_go_through(rule: Callable[[Tensor], TemperatureValue]) -> None:
    assert forward(with_temperature(Mine(rule)), square_batch(), PROGRESS).temperature is not None


class Custom(Loss):
    """A loss that a user wrote."""

    def __init__(self, rule: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, outputs: Outputs) -> Tensor:
        value: Tensor = self.rule(outputs.student_logits)
        return value


class CustomTaught(Custom):
    """A sibling that compares with a teacher, and so with each member of an ensemble."""

    needs_teacher = True


LOSSES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "BK": (
        lambda z: z,
        r"returned shape \[12, 5\]; expected \[\] or \[12\] \(one value per example\): average over classes, e.g. .mean\(-1\)",
    ),
    "B1": (lambda z: z[:, :1], r"returned shape \[12, 1\]; expected \[\] or \[12\] .*squeeze"),
    "1": (lambda z: z.mean()[None], r"returned shape \[1\]; expected \[\] or \[12\] .*squeeze"),
    "K": (lambda z: z.mean(0), r"returned shape \[5\]; expected \[\] or \[12\]"),
    "a number": (lambda z: 0.5, r"returned a float; expected \[\] or \[12\] .*return a tensor"),
}


@pytest.mark.parametrize("kind", [Custom, CustomTaught])
@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_of_another_shape_is_refused_by_name(kind: type[Custom], case: str) -> None:
    rule, message = LOSSES[case]
    distiller, _, batches = plain_steps.make("ensemble")
    objective = Objective({"kl": Term(KL()), "mine": Term(kind(rule))})
    with pytest.raises(ShapeError, match=f"losses.mine {message}"):
        step(distiller, objective, batches[0], PROGRESS)


def test_a_wrong_shape_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDX_FULL_ERROR", raising=False)
    distiller, _, batches = plain_steps.make("teacher")
    with pytest.raises(ValueError) as refused:
        step(distiller, Objective({"mine": Term(Custom(lambda z: z))}), batches[0], PROGRESS)
    assert report(refused.value, Arguments()) == FAILED
    told = capsys.readouterr().err
    assert told.startswith("kdx: ") and str(refused.value) in told and told.count("\n") == 1


class Strange(Network):
    """A network that a user wrote."""

    def __init__(self, rule: Callable[[Tensor], Any]) -> None:
        super().__init__("cifar_resnet8", 5)
        self.rule = rule

    def forward(self, images: Tensor) -> Tensor:
        value: Tensor = self.rule(super().forward(images))
        return value


LOGITS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "too few": (lambda z: z[:, :4], r"logits of shape \[5, 4\]; expected \[5, 5\]"),
    "a map": (lambda z: z[..., None], r"logits of shape \[5, 5, 1\]; expected \[5, 5\] .*flatten\(1\)"),
    "integers": (lambda z: z.long(), r"logits of type torch.int64; expected floating point: return logits.float\(\)"),
    "a pair": (lambda z: (z, z), "a tuple; expected a tensor of logits"),
}


@pytest.mark.parametrize("role", ["student", "teacher", "peer a"])
@pytest.mark.parametrize("case", LOGITS)
def test_logits_of_another_shape_are_refused_by_the_networks_role(role: str, case: str) -> None:
    rule, message = LOGITS[case]
    strange: nn.Module = Strange(rule)
    assert isinstance(strange, Network)
    plain = Network("cifar_resnet8", 5)
    distiller: Distiller | Cohort = Cohort(plain, {"a": strange})
    if role != "peer a":
        student, teacher = (strange, plain) if role == "student" else (plain, strange)
        distiller = Distiller(student, OnlineTeacher(teacher))
    with pytest.raises(ShapeError, match=f"{role} network Strange returned {message}"):
        forward(distiller, square_batch(), PROGRESS)
