"""Final metrics for student, teacher and calibrated variants, in one pass over a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kdx.metrics.assessment import Assessment, AssessmentResult
from kdx.metrics.base import EvaluationMetric
from kdx.metrics.disagreement import Disagreement
from kdx.teachers.calibration import TemperatureScaling
from kdx.training.logit_store import LogitStore
from kdx.types import Batch, Outputs

if TYPE_CHECKING:
    from kdx.distiller import Cohort, Distiller

SCALED = {"student_scaled": "student", "teacher_scaled": "teacher"}  # variant after temperature scaling -> network


@dataclass
class FinalPassResult:
    """Results of a final pass: by network, fitted temperatures, and the examples with the largest KL of teacher and student."""

    assessed: dict[str, AssessmentResult]
    temperatures: dict[str, float]
    furthest: list[dict[str, Any]] = field(default_factory=list)

    @property
    def numbers(self) -> dict[str, float]:
        """Return all numbers by `NETWORK/METRIC`."""
        return {f"{who}/{what}": value for who, result in self.assessed.items() for what, value in result.numbers.items()}


class FinalPass(nn.Module):
    """Collects the logits of all networks in `cast` on one split and computes the FinalPassResult.

    No step waits for the device.

    Args:
        cast: Networks by name, with the resolution in px that each sees: student, teacher (as it teaches), teacher_raw (before
            calibration), student_scaled and teacher_scaled (after temperature scaling), teacher_at_student_resolution,
            student_at_PX.
        num_classes: K.
        temperatures: Those of the scaled networks; a scaled network without one is left out. With None, they are fitted at
            the end of the pass, on this split, whose logits are kept until then.
        labels: Whether there are labels.
        added_metrics: Metrics beside the built-in ones, by name.
        at_student: Returns the teacher's logits [B,K] for the student's images of a batch; by default it is run on them.
    """

    def __init__(
        self,
        cast: Mapping[str, int],
        num_classes: int,
        temperatures: Mapping[str, float] | None = None,
        *,
        labels: bool = True,
        added_metrics: Mapping[str, EvaluationMetric] | None = None,
        at_student: Callable[[Batch], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.at_student = at_student
        scalable = SCALED if temperatures is None else temperatures
        self.cast = {who: side for who, side in cast.items() if who in scalable or who not in SCALED}
        self.scaled = {who: base for who, base in SCALED.items() if who in self.cast}
        self.temperatures = dict(temperatures or {})
        self.assessments = nn.ModuleDict({who: Assessment(num_classes, added_metrics, labels=labels) for who in self.cast})
        self.disagreement = Disagreement() if "teacher" in cast else None
        self.kept: dict[str, LogitStore] = {who: LogitStore() for who in self.scaled if who not in self.temperatures}
        self.labels: list[Tensor] = []

    def add(self, distiller: Distiller | Cohort, batch: Batch, outputs: Outputs, uncalibrated: Tensor | None = None) -> None:
        """Add a batch, its outputs, and the logits [B,K] of teacher_raw."""
        logits = {"student": outputs.student_logits}
        teacher = distiller.teacher
        if "teacher" in self.cast:
            assert teacher is not None and outputs.teacher_logits is not None and self.disagreement is not None
            logits["teacher"] = outputs.teacher_logits
            self.disagreement.update(outputs)
            if "teacher_raw" in self.cast:
                assert uncalibrated is not None
                logits["teacher_raw"] = uncalibrated
            if "teacher_at_student_resolution" in self.cast:
                shown = self.at_student(batch) if self.at_student is not None else teacher(batch.student_images)
                logits["teacher_at_student_resolution"] = shown
        for side, images in batch.further_images.items():
            logits[f"student_at_{side}"] = distiller.student(images).float()
        for who, of_network in logits.items():
            self._assess(who, of_network, outputs.label)
        for who, base in self.scaled.items():
            if who in self.kept:
                self.kept[who].append(logits[base])
            else:
                self._assess(who, logits[base] / self.temperatures[who], outputs.label)
        if self.kept:
            assert outputs.label is not None
            self.labels.append(outputs.label)

    def _assess(self, who: str, logits: Tensor, label: Tensor | None) -> None:
        assessment = self.assessments[who]
        assert isinstance(assessment, Assessment)
        assessment.update(logits, label)

    def finish(self) -> FinalPassResult:
        """Return the results over all ranks, after fitting the temperatures that were not given."""
        for who, batches in self.kept.items():
            self.temperatures[who] = TemperatureScaling().calibrate(batches, self.labels).temperature
            for logits, label in zip(batches, self.labels, strict=True):
                self._assess(who, logits / self.temperatures[who], label)
        self.kept, self.labels = {}, []
        assessed = {}
        for who, assessment in self.assessments.items():
            assert isinstance(assessment, Assessment)
            assessed[who] = assessment.compute()
        furthest = self.disagreement.compute() if self.disagreement is not None else []
        return FinalPassResult(assessed, {who: self.temperatures[who] for who in self.scaled}, furthest)
