"""What one optimizer step is in a run: clipped, accumulated, counted."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from kdx.training.optimizers.schedules import CosineLr

SHORT = ("experiment=supervised_digits", "data=digits300", "test=false", "trainer.log_every_n_steps=1", "optimizer.lr=1.0")


@pytest.fixture
def gradients() -> Iterator[list[tuple[float, float]]]:
    """The norm of all gradients at each step, and that of the last group's."""
    seen: list[tuple[float, float]] = []

    def look(optimizer: Optimizer, *_: object) -> None:
        if isinstance(optimizer, torch.optim.LBFGS):
            return  # temperature scaling's, which trains nothing
        groups = [[p.grad for p in group["params"] if p.grad is not None] for group in optimizer.param_groups]
        everything = [gradient for group in groups for gradient in group]
        seen.append((get_total_norm(everything).item(), get_total_norm(groups[-1]).item()))

    # after the step, for Lightning computes gradients within it
    handle = register_optimizer_step_post_hook(look)
    yield seen
    handle.remove()


def rates(folder: Path) -> list[tuple[int, float]]:
    """(step, lr) of every logged training step."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row["train/lr"])) for row in csv.DictReader(file) if row.get("train/lr")]


def test_clipping_is_by_the_norm_of_all_gradients_the_temperatures_with_them(
    train: Callable[..., Path], gradients: list[tuple[float, float]]
) -> None:
    limit = 1e-3  # always below
    options = ("temperature.ramp=constant", f"trainer.gradient_clip_val={limit}", "trainer.limit_train_batches=4")
    train("run", "experiment=ctkd_digits", "trainer.max_epochs=1", "test=false", *options)
    steps = gradients[-4:]  # those before are the teacher's
    assert [norm for norm, _ in steps] == pytest.approx([limit] * 4, rel=1e-3)
    assert all(0 < temperatures < limit for _, temperatures in steps)


@pytest.mark.parametrize("batches", [1, 2])
def test_lr_follows_the_schedule_once_per_optimizer_step(
    train: Callable[..., Path], gradients: list[tuple[float, float]], batches: int
) -> None:
    accumulated = f"trainer.accumulate_grad_batches={batches}"
    folder = train(
        "run", *SHORT, "trainer.max_epochs=4", "trainer.limit_train_batches=4", accumulated, "lr_schedule.warmup_epochs=1"
    )
    total, schedule = 16 // batches, CosineLr(warmup_epochs=1)
    assert len(gradients) == total
    assert [step for step, _ in rates(folder)] == list(range(1, total + 1))  # a batch that only adds its gradient has no row
    assert [rate for _, rate in rates(folder)] == pytest.approx(
        [schedule(step, total, 4 / batches) for step in range(1, total + 1)], abs=1e-7
    )


@pytest.mark.parametrize("batches", [1, 2])
def test_lr_is_in_proportion_to_the_images_of_a_step(train: Callable[..., Path], batches: int) -> None:
    words = ("lr_batch_size=32", "optimizer.lr=0.01", "data.batch_size=48", f"trainer.accumulate_grad_batches={batches}")
    folder = train("run", *SHORT, "trainer.max_epochs=1", "trainer.limit_train_batches=4", *words, "lr_schedule=constant")
    assert [rate for _, rate in rates(folder)] == pytest.approx([0.01 * 48 * batches / 32] * len(rates(folder)))
    assert rates(folder)


def test_two_accumulated_batches_are_the_mean_of_their_gradients(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdx.training.module import DistillationModule

    losses: list[torch.Tensor] = []
    original = DistillationModule.training_step

    def step(self: DistillationModule, *args: object) -> torch.Tensor:
        loss = original(self, *args)
        losses.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(own(self)), retain_graph=True)]))
        return loss

    def own(module: DistillationModule) -> Iterator[torch.nn.Parameter]:
        return module.distiller.student.parameters()

    taken: list[torch.Tensor] = []
    monkeypatch.setattr(DistillationModule, "training_step", step)
    monkeypatch.setattr(
        DistillationModule,
        "on_before_optimizer_step",
        lambda self, _: taken.append(torch.cat([p.grad.flatten().clone() for p in own(self)])),
    )
    train("run", *SHORT, "trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.accumulate_grad_batches=2")
    assert len(losses) == 4 and len(taken) == 2
    for i, gradient in enumerate(taken):
        torch.testing.assert_close(gradient, (losses[2 * i] + losses[2 * i + 1]) / 2, rtol=1e-4, atol=1e-6)


def test_a_run_of_so_many_steps_has_a_schedule_of_so_many(
    train: Callable[..., Path], gradients: list[tuple[float, float]]
) -> None:
    folder = train("run", *SHORT, "trainer.max_epochs=-1", "trainer.max_steps=7", "lr_schedule.warmup_steps=2")
    assert len(gradients) == 7
    schedule = CosineLr(warmup_steps=2)
    assert rates(folder) == [(step, pytest.approx(schedule(step, 7, 1.0), abs=1e-7)) for step in range(1, 8)]


def test_a_run_ends_at_its_epochs_where_they_are_fewer_than_its_steps(
    train: Callable[..., Path], gradients: list[tuple[float, float]]
) -> None:
    limits = ("trainer.max_epochs=2", "trainer.max_steps=1000", "trainer.limit_train_batches=3")
    folder = train("run", *SHORT, *limits)
    assert len(gradients) == 6
    assert rates(folder)[-1] == (6, pytest.approx(0.0, abs=1e-7))
