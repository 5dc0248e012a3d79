"""Evaluation and calibration of the teacher before training, at its own resolution and at the student's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdx.metrics.assessment import NUM_BINS
from kdx.metrics.base import EvaluationMetric
from kdx.metrics.calibration import equal_mass_bins, expected_calibration_error
from kdx.metrics.gathering import everywhere
from kdx.metrics.suite import Suite
from kdx.teachers.calibration import Calibrator
from kdx.teachers.calibration_maps import IDENTITY, CalibrationMap
from kdx.teachers.class_order import Classes, judge_order
from kdx.teachers.ensemble import disagreement
from kdx.teachers.judgement import Fault, judge, judge_normalization, undetermined
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.training.examination import Examination
from kdx.training.logit_store import LogitStore, MappedLogits
from kdx.types import Batch, Outputs


@dataclass
class Preflight:
    """Results of the teacher on val. `logits` per batch of this rank are reused in every epoch, because they do not change.

    `raw` are those before calibration, None for an ensemble, whose members are calibrated one by one.
    """

    logits: Sequence[Tensor]
    raw: Sequence[Tensor] | None
    calibrations: dict[str, CalibrationMap]  # by member
    metrics: dict[str, float] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def of_batch(self, number: int) -> tuple[Tensor, Tensor | None]:
        """Return the logits [B,K] of a batch, and those before calibration of a single teacher."""
        if self.raw is None:
            return self.logits[number], None
        (calibration,), raw = self.calibrations.values(), self.raw[number]
        return calibration(raw), raw


@torch.no_grad()
def inspect(
    teacher: Teacher,
    batches: Iterable[Batch],
    calibration: Calibrator | None,
    num_classes: int,
    added_metrics: Mapping[str, EvaluationMetric] | None = None,
    judged: bool = True,
    classes: Mapping[str, Classes] | None = None,
    examination: Examination | None = None,
) -> Preflight:
    """Evaluate the teacher on val at its own resolution and on the student's images, with calibration if configured.

    Metrics: `teacher/...` after and `teacher_raw/...` before calibration at the teacher's resolution;
    `teacher_at_student_resolution/...` after calibration, if the teacher runs there. The members of an ensemble are calibrated
    separately; each has its own metrics `teacher_NAME/...`, beside `teacher/disagreement`. Sets `calibration` of each member,
    which is the identity where val does not determine it. What is wrong with a member is among the `faults`, a cause before
    its effects. Without `judged`, none is looked for, and the best map within its bounds is used. `classes` are those
    of the members, by name, whose order of classes is in question. An `examination` gives what an earlier run has kept.
    """
    members, examination = teacher.members, examination or Examination(teacher)
    for member in members.values():
        member.calibration = IDENTITY
    own, low = ({name: LogitStore() for name in members} for _ in range(2))
    predicted: list[Tensor] = []  # [B,M]
    labels: list[Tensor] = []
    otherwise: dict[str, list[Tensor]] = {
        name: [] for name, member in members.items() if judged and isinstance(member, OnlineTeacher) and member.alternatives
    }
    runs_at_student: bool | None = None
    for batch in batches:
        each = examination.raw("val", batch)
        predicted.append(each.argmax(-1).T)
        _append(own, each)
        for name, answers in otherwise.items():
            answers.append(examination.normalized_otherwise("val", batch, name).argmax(-1).T)
        runs_at_student = teacher.runs_at(batch.student_images.shape[-1]) if runs_at_student is None else runs_at_student
        if runs_at_student:
            same = batch.student_images is batch.teacher_images and not batch.other_images
            _append(low, each if same else examination.raw_at_student("val", batch))
        if batch.label is not None:
            labels.append(batch.label)

    examination.finish()

    def measured(name: str, logits: Iterable[Tensor]) -> dict[str, float]:
        return {f"{name}/{what}": value for what, value in _measure(logits, labels, num_classes, added_metrics).items()}

    metrics = measured("teacher_raw", map(teacher.combine, _each(own, members)))
    faults: list[Fault] = []
    if calibration is not None and not labels:
        raise ValueError("Teacher calibration requires labels on val: use calibration=none")
    if labels:
        answered, label = everywhere(predicted), everywhere(labels)
        for i, (name, member) in enumerate(members.items()):
            single = len(members) == 1
            title, key = ("The teacher", "teacher") if single else (f"Teacher {name}", f"teacher.members.{name}")
            if judged:
                own_classes = (classes or {}).get(name)
                causes = (
                    judge_order(answered[:, i], label, teacher.num_classes, title, own_classes)
                    if own_classes is not None
                    else []
                )
                if name in otherwise and not causes:  # in a wrong order, another normalization seems better by chance
                    assert isinstance(member, OnlineTeacher)
                    causes = judge_normalization(answered[:, i], everywhere(otherwise[name]), label, title, member, key)
                faults += [*causes, *judge(answered[:, i], label, teacher.num_classes, title)]
            if calibration is not None:
                fitted = calibration.calibrate(own[name], labels, certain=not judged)
                member.calibration = fitted.map
                if member.calibration_temperature is not None:
                    key = "calibration_temperature" if single else f"calibration_temperature_{name}"
                    metrics[key] = member.calibration_temperature
                faults += undetermined(fitted, title)
    raw = own[next(iter(own))] if len(members) == 1 else None
    logits: Sequence[Tensor] = MappedLogits(raw, teacher.calibration) if raw is not None else _combined(own, teacher)
    metrics |= measured("teacher", logits)
    if runs_at_student:
        metrics |= measured("teacher_at_student_resolution", map(teacher.combine, _each(low, members)))
    if len(members) > 1:
        for name, member in members.items():
            metrics |= measured(f"teacher_{name}", map(member.calibration, own[name]))
        metrics["teacher/disagreement"] = everywhere([disagreement(each) for each in _each(own, members)]).mean().item()
    return Preflight(logits, raw, {name: member.calibration for name, member in members.items()}, metrics, faults)


def _append(stores: Mapping[str, LogitStore], each: Tensor) -> None:
    for store, logits in zip(stores.values(), each, strict=True):
        store.append(logits)


def _each(stores: Mapping[str, LogitStore], members: Mapping[str, Teacher]) -> Iterator[Tensor]:
    """Yield the logits [M,B,K] of each batch, after the calibration that the members have now."""
    for batch in zip(*stores.values(), strict=True):
        yield torch.stack([member.calibration(logits) for logits, member in zip(batch, members.values(), strict=True)])


def _combined(stores: Mapping[str, LogitStore], teacher: Teacher) -> LogitStore:
    combined = LogitStore()
    for each in _each(stores, teacher.members):
        combined.append(teacher.combine(each))
    return combined


def _measure(
    logits: Iterable[Tensor], labels: list[Tensor], num_classes: int, added: Mapping[str, EvaluationMetric] | None
) -> dict[str, float]:
    suite = Suite(num_classes, added, teacher=False, labels=bool(labels))
    confidence, correct = [], []
    for i, batch in enumerate(logits):
        suite.to(batch.device).update(Outputs(batch, label=labels[i] if labels else None))
        if labels:
            likeliest = batch.double().log_softmax(-1).max(-1)
            confidence.append(likeliest.values.exp())
            correct.append(likeliest.indices == labels[i])
    metrics = {name.removeprefix("student/"): value for name, value in suite.compute().items()}
    if labels:
        sums = equal_mass_bins(everywhere(confidence).cpu(), everywhere(correct).cpu(), NUM_BINS)
        metrics["ece_mass"] = expected_calibration_error(sums).item()
    return metrics
