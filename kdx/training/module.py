"""The Lightning module around `kdx.training.step`: optimizers, logging, and metrics of val and test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from kdx.distiller import Cohort, Distiller
from kdx.losses.objective import Objective
from kdx.metrics.base import EvaluationMetric
from kdx.metrics.suite import Suites
from kdx.temperatures.base import Temperature
from kdx.training.answering import TeacherAnswers
from kdx.training.callbacks.checkpoints import after_bad_loss
from kdx.training.datamodule import batches_begun
from kdx.training.examination import Examination
from kdx.training.final_pass import FinalPass, FinalPassResult
from kdx.training.gradients import gradient_norms
from kdx.training.loggers.journal import Journal
from kdx.training.optimizers.groups import Decay, optimizer_and_schedule, parameter_groups
from kdx.training.optimizers.schedules import LrSchedule
from kdx.training.preflight import Preflight
from kdx.training.step import forward, step
from kdx.training.telemetry import NonFiniteLossError, Telemetry
from kdx.types import Batch, Progress

log = logging.getLogger("kdx")


class _StepLog(Callback):
    """Logs a step as a callback: Lightning writes checkpoints after those, but before the hook of the module."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        assert isinstance(pl_module, DistillationModule)
        pl_module.log_step()


class DistillationModule(pl.LightningModule):
    """Trains `distiller.student`, its peers, a learned temperature and the parameters of losses on the objective.

    `inspect_teacher` runs once before the first step and returns the Preflight. `store_targets` then returns the teacher's
    logits on train, if its views never change, and the teacher is not run in training; `open_answers` returns where those of
    other views are read and kept; `examination` does that on test. Checkpoints hold the student, the temperature and the
    parameters of losses; never the teacher. If `final_pass` is set, it receives the outputs of the next split that is validated
    or tested, and `findings` is its result.
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
        fused: bool = False,
        added_metrics: Mapping[str, EvaluationMetric] | None = None,
        inspect_teacher: Callable[[DistillationModule], Preflight] | None = None,
        store_targets: Callable[[DistillationModule], Tensor] | None = None,
        open_answers: Callable[[DistillationModule], TeacherAnswers | None] | None = None,
        examination: Examination | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__()
        self.distiller, self.objective = distiller, objective
        self.make_optimizer, self.lr_schedule, self.decay, self.fused = optimizer, lr_schedule, decay, fused
        self.inspect_teacher, self.store_targets = inspect_teacher, store_targets
        self.open_answers, self.examination = open_answers, examination
        self.answering: TeacherAnswers | None = None  # of which other runs have some
        self.targets: Tensor | None = None  # the teacher's logits [N,K] on train, where its views never change
        self.preflight: Preflight | None = None
        peers = list(distiller.peers) if isinstance(distiller, Cohort) else []
        num_classes, teacher = distiller.student.num_classes, distiller.teacher is not None or bool(peers)
        self.val_suites = Suites(num_classes, peers, added_metrics, teacher=teacher, labels=labels)
        self.test_suites = Suites(num_classes, peers, added_metrics, teacher=teacher, labels=labels)
        self.telemetry, self.total_steps, self.warned = telemetry or Telemetry(), 0, False
        self.val_metrics, self.test_metrics = dict[str, float](), dict[str, float]()
        self.final_pass: FinalPass | None = None
        self.findings: FinalPassResult | None = None
        self.temperature_gradient: Tensor | None = None
        self.gradient_norms: dict[str, Tensor] = {}  # of the last step that is logged

    @property
    def progress(self) -> Progress:
        """How far training is; 1 outside of training."""
        return Progress(self.global_step / self.total_steps if self.total_steps else 1.0, self.current_epoch)

    def configure_optimizers(self) -> Any:
        self.trainer.fit_loop.setup_data()  # or the number of batches is still unknown
        self.total_steps = int(self.trainer.estimated_stepping_batches)
        per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        learner = torch.nn.ModuleList([self.distiller, self.objective])
        groups = parameter_groups(learner, self.distiller.temperature, self.decay)
        return optimizer_and_schedule(groups, self.make_optimizer, self.lr_schedule, self.total_steps, per_epoch, self.fused)

    def on_fit_start(self) -> None:
        if self.inspect_teacher is not None:
            self.preflight = self.inspect_teacher(self)
        if self.store_targets is not None:
            self.targets = self.store_targets(self)
        if self.open_answers is not None:
            self.answering = self.open_answers(self)

    def on_train_start(self) -> None:
        if self.preflight is not None and self.global_step == 0:  # a resumed run has logged it
            self.log_now({f"preflight/{name}": value for name, value in self.preflight.metrics.items()}, epoch=0)
        self.telemetry.start_clock()

    def on_test_start(self) -> None:
        if self.distiller.teacher is not None:
            self.distiller.teacher.to(self.device)

    def on_validation_start(self) -> None:
        if self.final_pass is not None:
            self.on_test_start()

    def on_train_epoch_start(self) -> None:
        self.telemetry.restart()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        result = step(self.distiller, self.objective, batch, self.progress, self._known(batch))
        if (self.global_step + 1) % self.every == 0:
            logits, taught = result.outputs.student_logits, self.objective.needs_teacher
            self.gradient_norms = gradient_norms(result.weighted, logits, taught)
        share, numbers, loss = self._share(batch), dict(result.numbers), result.loss
        if share is not None:
            numbers, loss = {name: value.mean() * share for name, value in numbers.items()}, loss * share
        self.telemetry.add(numbers, self.global_step, len(batch) * self.trainer.world_size)
        return loss

    def _known(self, batch: Batch) -> Tensor | None:
        """Return the teacher's logits if they are stored for all epochs, or are kept or to be kept for this one."""
        if self.answering is not None:
            return self.answering(batch)
        return None if self.targets is None or batch.index is None else self.targets[batch.index]

    def on_train_epoch_end(self) -> None:
        if self.answering is not None:
            self.answering.finish()

    def _share(self, batch: Batch) -> Tensor | None:
        """Return this rank's share of the global batch times the number of ranks; None: 1, because no image can be skipped.

        Gradients are averaged over ranks; with this factor they are those of the mean over the global batch.
        """
        if self.trainer.world_size == 1 or not self.trainer.datamodule.may_skip:  # type: ignore[attr-defined]  # DataModule
            return None
        count = torch.tensor(float(len(batch)), device=self.device)
        total = count.clone()
        torch.distributed.all_reduce(total)
        return count * self.trainer.world_size / total

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        learned = self.distiller.temperature.parameters() if self.distiller.temperature is not None else []
        gradients = [parameter.grad for parameter in learned if parameter.grad is not None]
        if gradients:
            self.temperature_gradient = torch.nn.utils.get_total_norm(gradients)

    @property
    def every(self) -> int:
        """Number of steps from one point of the curves to the next."""
        return max(int(self.trainer.log_every_n_steps), 1)  # type: ignore[attr-defined]  # it has, and does not declare it

    def configure_callbacks(self) -> list[Callback]:
        return [_StepLog()]

    def log_step(self) -> None:
        """Log the training curves if a point of them is due: after a step, which with accumulation is not every batch."""
        ends_step = batches_begun(self.trainer) % self.trainer.accumulate_grad_batches == 0
        if (ends_step and self.global_step % self.every == 0) or self.trainer.is_last_batch:
            self.log_training()

    def log_training(self) -> None:
        """Write means since the last call to all loggers: the only place in training where the host waits for the device."""
        try:
            values = self.telemetry.read()
        except NonFiniteLossError as error:
            raise NonFiniteLossError(f"{error}. {after_bad_loss(self.trainer, error.step)}", error.step) from None
        if not values:
            return
        if self.distiller.temperature is not None:
            values |= self.distiller.temperature.telemetry(self.progress)
            self._warn_once(self.distiller.temperature)
        if self.temperature_gradient is not None:
            values["temperature_gradient"] = self.temperature_gradient.item()
        if self.gradient_norms:
            norms = torch.stack(list(self.gradient_norms.values())).tolist()
            values |= dict(zip(self.gradient_norms, norms, strict=True))
            self.gradient_norms = {}
        values["lr"] = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]  # one optimizer
        self.log_now({f"train/{name}": value for name, value in values.items()})

    def _warn_once(self, temperature: Temperature) -> None:
        complaint = None if self.warned else temperature.complaint()
        if complaint is not None:
            self.warned = True
            log.warning("at step %d: %s", self.global_step, complaint)

    def log_now(self, values: dict[str, float], epoch: int | None = None) -> None:
        """Write numbers to all loggers at this step, on the first rank, with the number of the current epoch, from 1."""
        epoch = self.current_epoch + 1 if epoch is None else epoch
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": epoch}, step=self.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(self.val_suites, batch, *(self.preflight.of_batch(batch_idx) if self.preflight is not None else ()))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._measure(self.test_suites, batch, *(self.examination.of_batch("test", batch) if self.examination else ()))

    def _measure(self, suites: Suites, batch: Batch, teacher_logits: Tensor | None = None, raw: Tensor | None = None) -> None:
        outputs = forward(self.distiller, batch, self.progress, teacher_logits)
        suites.update(outputs)
        if self.final_pass is not None:
            self.final_pass.add(self.distiller, batch, outputs, raw)

    def _finish_final_pass(self) -> None:
        """Gather the findings of all ranks while they still run."""
        if self.examination is not None:
            self.examination.finish()
        if self.final_pass is not None:
            self.findings, self.final_pass = self.final_pass.finish(), None

    def on_validation_epoch_end(self) -> None:
        self.val_metrics = self.val_suites.compute()
        self._finish_final_pass()
        numbers = {f"val/{name}": value for name, value in self.val_metrics.items()}
        # for callbacks that monitor them, the same on all ranks; self.log does this too, but can take longer than validation
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in numbers.items()})
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.log_now(numbers)

    def on_test_epoch_end(self) -> None:
        self.test_metrics = self.test_suites.compute()
        self._finish_final_pass()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the means since the last log, and the calibration for readers: a resumed run fits it again on the same val."""
        checkpoint["telemetry"] = self.telemetry.state()
        if self.preflight is not None:
            checkpoint["calibrations"] = {name: each.card for name, each in self.preflight.calibrations.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "telemetry" in checkpoint:  # not in checkpoints of older versions
            self.telemetry.load(checkpoint["telemetry"])
        for logger in self.loggers:
            if isinstance(logger, Journal):
                logger.resume(checkpoint["global_step"])
