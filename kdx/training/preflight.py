"""Before the first step: what does the teacher know, at its own resolution and at the student's?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from kdx.metrics.suite import Suite
from kdx.teachers.calibration import TemperatureScaling
from kdx.teachers.teacher import Teacher
from kdx.types import Batch, Outputs


@dataclass
class Preflight:
    """The teacher on val. `logits` per batch of this rank are kept: they never change, so no epoch computes them again."""

    logits: list[Tensor]
    calibration_temperature: float
    metrics: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def inspect(teacher: Teacher, batches: Iterable[Batch], calibration: TemperatureScaling | None, num_classes: int) -> Preflight:
    """Measure the teacher on val at its own resolution and on the student's images, and calibrate it there if asked.

    Metrics: `teacher/...` after and `teacher_raw/...` before calibration at the teacher's resolution;
    `teacher_at_student_resolution/...` after calibration. The teacher keeps its `calibration_temperature`.
    """
    teacher.calibration_temperature = 1.0
    own: list[Tensor] = []
    low: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in batches:
        assert batch.teacher_images is not None
        own.append(teacher(batch.teacher_images))
        low.append(teacher(batch.student_images))
        if batch.label is not None:
            labels.append(batch.label)
    metrics = {f"teacher_raw/{name}": value for name, value in _measure(own, labels, num_classes).items()}
    if calibration is not None:
        if not labels:
            raise ValueError("the teacher cannot be calibrated without labels on val: use calibration=none")
        teacher.calibration_temperature = calibration.fit(_everywhere(own), _everywhere(labels))
        metrics["calibration_temperature"] = teacher.calibration_temperature
    own, low = ([x / teacher.calibration_temperature for x in logits] for logits in (own, low))
    metrics |= {f"teacher/{name}": value for name, value in _measure(own, labels, num_classes).items()}
    low_metrics = _measure(low, labels, num_classes)
    metrics |= {f"teacher_at_student_resolution/{name}": value for name, value in low_metrics.items()}
    return Preflight(own, teacher.calibration_temperature, metrics)


def _measure(logits: list[Tensor], labels: list[Tensor], num_classes: int) -> dict[str, float]:
    suite = Suite(num_classes, teacher=False, labels=bool(labels)).to(logits[0].device)
    for i, batch in enumerate(logits):
        suite.update(Outputs(batch, label=labels[i] if labels else None))
    return {name.removeprefix("student/"): value for name, value in suite.compute().items()}


def _everywhere(parts: list[Tensor]) -> Tensor:
    whole = torch.cat(parts)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.cat(gather_all_tensors(whole))
    return whole
