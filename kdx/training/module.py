"""The Lightning module: one training step, and the metrics of val and test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from kdx.distiller import Cohort, Distiller
from kdx.losses.objective import Objective
from kdx.metrics.base import EvaluationMetric
from kdx.metrics.suite import Suites
from kdx.temperatures.base import Temperature
from kdx.training.final_pass import FinalPass, FinalPassResult
from kdx.training.gradients import pulls
from kdx.training.optimizers.groups import Decay, optimizer_and_schedule, parameter_groups
from kdx.training.optimizers.schedules import LrSchedule
from kdx.training.preflight import Preflight
from kdx.training.telemetry import NonFiniteLossError, Telemetry
from kdx.types import Batch, Outputs, Progress, TemperaturePair

log = logging.getLogger("kdx")


class DistillationModule(pl.LightningModule):
    """Trains `distiller.student` (and its peers, a learned temperature and what losses learn) on the objective.

    `inspect_teacher` runs once before the first step and gives the Preflight; then `store_targets`, if the teacher's views on
    train never change, gives its logits there, and it is not run in training. Checkpoints hold the student, the
    temperature and what losses learn; never the teacher. A `final_pass`, once there, looks along at one split that is
    validated or tested, and leaves its `findings`.
    """

    def __init__(
        self,
        distiller: Distiller | Cohort,
        objective: Objective,
        optimizer: Callable[..., Optimizer],
        lr_schedule: LrSchedule,
        decay: Decay = "kernels",
        *,
        labels: bool = True,
        added_metrics: Mapping[str, EvaluationMetric] | None = None,
        inspect_teacher: Callable[[DistillationModule], Preflight] | None = None,
        store_targets: Callable[[DistillationModule], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.distiller, self.objective = distiller, objective
        self.make_optimizer, self.lr_schedule, self.decay = optimizer, lr_schedule, decay
        self.inspect_teacher, self.store_targets = inspect_teacher, store_targets
        self.targets: Tensor | None = None  # the teacher's logits [N,K] on train, where its views never change
        self.preflight: Preflight | None = None
        peers = list(distiller.peers) if isinstance(distiller, Cohort) else []
        num_classes, teacher = distiller.student.num_classes, distiller.teacher is not None or bool(peers)
        self.val_suites = Suites(num_classes, peers, added_metrics, teacher=teacher, labels=labels)
        self.test_suites = Suites(num_classes, peers, added_metrics, teacher=teacher, labels=labels)
        self.telemetry = Telemetry()
        self.val_metrics: dict[str, float] = {}
        self.test_metrics: dict[str, float] = {}
        self.final_pass: FinalPass | None = None
        self.findings: FinalPassResult | None = None
        self.total_steps = 0
        self.temperature_gradient: Tensor | None = None
        self.pulls: dict[str, Tensor] = {}  # of the losses at the student's logits, at steps that are logged
        self.warned = False

    @property
    def progress(self) -> Progress:
        """How far training is; 1 where nothing is trained."""
        return Progress(self.global_step / self.total_steps if self.total_steps else 1.0, self.current_epoch)

    def configure_optimizers(self) -> Any:
        self.trainer.fit_loop.setup_data()  # or the number of batches is not known yet
        self.total_steps = int(self.trainer.estimated_stepping_batches)
        per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        learner = torch.nn.ModuleList([self.distiller, self.objective])
        groups = parameter_groups(learner, self.distiller.temperature, self.decay)
        return optimizer_and_schedule(groups, self.make_optimizer, self.lr_schedule, self.total_steps, per_epoch)

    def on_fit_start(self) -> None:
        if self.inspect_teacher is not None:
            self.preflight = self.inspect_teacher(self)
            self.log_now({f"preflight/{name}": value for name, value in self.preflight.metrics.items()})
        if self.store_targets is not None:
            self.targets = self.store_targets(self)

    def on_test_start(self) -> None:
        if self.distiller.teacher is not None:
            self.distiller.teacher.to(self.device)

    def on_validation_start(self) -> None:
        if self.final_pass is not None and self.distiller.teacher is not None:
            self.distiller.teacher.to(self.device)

    def on_train_epoch_start(self) -> None:
        self.telemetry.restart()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        known = None if self.targets is None or batch.index is None else self.targets[batch.index]
        outputs = self.distiller(batch, self.progress, known)
        loss, values = self._score(outputs)
        self.telemetry.add(values, self.global_step, len(batch) * self.trainer.world_size)
        return loss

    def _score(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of what everyone minimizes, and the step's numbers."""
        scored = self.objective(outputs)
        loss = scored.loss
        if (self.global_step + 1) % self.every == 0:
            self.pulls = pulls(scored.weighted, outputs.student_logits, self.objective.needs_teacher)
        values = {"loss": loss, **{f"loss_{name}": part for name, part in scored.parts.items()}}
        for peer, said in outputs.peers.items():
            other = self.objective(said)
            loss = loss + other.loss
            values[f"loss_peer_{peer}"] = other.loss
        if isinstance(outputs.temperature, TemperaturePair):
            values |= spread("temperature_teacher", outputs.temperature.teacher)
            values |= spread("temperature_student", outputs.temperature.student)
        elif outputs.temperature is not None:
            values |= spread("temperature", outputs.temperature)
        if outputs.disagreement is not None:
            values["disagreement"] = outputs.disagreement
        return loss, values

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        learned = [p.grad for p in self.temperature_parameters if p.grad is not None]
        if learned:
            self.temperature_gradient = torch.nn.utils.get_total_norm(learned)

    @property
    def temperature_parameters(self) -> list[torch.nn.Parameter]:
        """What a learned temperature learns."""
        return list(self.distiller.temperature.parameters()) if self.distiller.temperature is not None else []

    @property
    def every(self) -> int:
        """After how many steps the curves get a point."""
        steps: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # it has, and does not declare it
        return max(steps, 1)

    def on_train_batch_end(self, *args: Any) -> None:
        if self.global_step % self.every == 0 or self.trainer.is_last_batch:
            self.log_training()

    def log_training(self) -> None:
        """Means since the last call to all loggers: the one place in training where the host waits for the device."""
        try:
            values = self.telemetry.read()
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"{error}. {self._last_good_checkpoint()}") from None
        if not values:
            return
        if self.distiller.temperature is not None:
            values |= self.distiller.temperature.telemetry(self.progress)
            self._warn_of_temperature(self.distiller.temperature)
        if self.temperature_gradient is not None:
            values["temperature_gradient"] = self.temperature_gradient.item()
        if self.pulls:
            values |= dict(zip(self.pulls, torch.stack(list(self.pulls.values())).tolist(), strict=True))
            self.pulls = {}
        values["lr"] = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]  # one optimizer
        self.log_now({f"train/{name}": value for name, value in values.items()})

    def _warn_of_temperature(self, temperature: Temperature) -> None:
        complaint = None if self.warned else temperature.complaint()
        if complaint is not None:
            self.warned = True
            log.warning("at step %d: %s", self.global_step, complaint)

    def _last_good_checkpoint(self) -> str:
        kept = [getattr(callback, "best_model_path", "") for callback in self.trainer.checkpoint_callbacks]
        path = next((path for path in reversed(kept) if path), None)
        good = f"The last good checkpoint is {path}" if path else "No checkpoint was written before"
        return f"{good}; try a lower optimizer.lr, or trainer.gradient_clip_val=1.0"

    def log_now(self, values: dict[str, float]) -> None:
        """Write numbers to all loggers at this step, on the first rank."""
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": self.current_epoch}, step=self.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        known = self.preflight.logits[batch_idx] if self.preflight is not None else None
        outputs = self.distiller(batch, self.progress, known)
        self.val_suites.update(outputs)
        self._look_along(batch, outputs)

    def _look_along(self, batch: Batch, outputs: Outputs) -> None:
        if self.final_pass is not None:
            self.final_pass.add(self.distiller, batch, outputs)

    def _conclude(self) -> None:
        """Gather the findings, here, where the ranks can still talk."""
        if self.final_pass is not None:
            self.findings = self.final_pass.finish()
            self.final_pass = None

    def on_validation_epoch_end(self) -> None:
        self.val_metrics = self.val_suites.compute()
        self._conclude()
        numbers = {f"val/{name}": value for name, value in self.val_metrics.items()}
        self.log_dict(numbers, logger=False)  # for whoever monitors; the same on all ranks
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.log_now(numbers)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        outputs = self.distiller(batch, self.progress)
        self.test_suites.update(outputs)
        self._look_along(batch, outputs)

    def on_test_epoch_end(self) -> None:
        self.test_metrics = self.test_suites.compute()
        self._conclude()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A cut-off run finds its calibration again, though it is also fitted anew from the same val."""
        if self.preflight is not None:
            checkpoint["calibration_temperatures"] = self.preflight.calibration_temperatures


def spread(name: str, values: Tensor) -> dict[str, Tensor]:
    """The mean of a temperature; and how it is spread over the examples, where each has its own."""
    if values.numel() == 1:
        return {name: values}
    return {name: values, f"{name}_min": values.min(), f"{name}_max": values.max(), f"{name}_std": values.std()}


def seed_everything(seed: int) -> None:
    """Seed torch, NumPy and Python, for initial weights and dropout; views and order have seeds of their own."""
    pl.seed_everything(seed, workers=True, verbose=False)
