"""Whether a teacher can teach: its answers on val against chance, the most common class, and other normalizations."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import bdtr
from torch import Tensor

from kdx.teachers.calibration import Calibration
from kdx.teachers.teacher import OnlineTeacher

SIGNIFICANT = 0.05
FEWEST = 10  # labeled val images; with fewer, nothing is judged


@dataclass(frozen=True)
class Fault:
    """What is wrong with a teacher: a word for it, a sentence with the remedy, and whether it is certain."""

    kind: str
    text: str
    certain: bool


def mcnemar(other: Tensor, right: Tensor) -> float:
    """Return the p-value of McNemar's exact one-sided test that mask `other` [N] is true more often than `right` [N]."""
    gained, lost = int((other & ~right).sum()), int((right & ~other).sum())
    return float(bdtr(lost, gained + lost, 0.5)) if gained + lost else 1.0  # P(lost or fewer of fair coin flips)


def judge(predicted: Tensor, label: Tensor, num_classes: int, name: str) -> list[Fault]:
    """Return the faults of a teacher's answers, the classes [N] that it predicts for val images with labels [N].

    It is certain that a teacher is wrong if it gives the same answer to all images of several classes, or if its accuracy is at
    or below chance, 1/K, and one with twice the accuracy of chance would be as bad with a probability below 5 %.
    """
    count = len(predicted)
    if count < FEWEST or num_classes < 2:
        return []
    answers, right = predicted.unique(), int((predicted == label).sum())
    accuracy, chance, majority = right / count, 1 / num_classes, label.bincount().max().item() / count
    check = "Check the weights, class order, normalization and resolution of the teacher, or train it longer"
    if len(answers) == 1 and majority < 1:
        text = f"{name} predicts class {int(answers[0])} for all {count} val images. {check}"
        return [Fault("teacher_is_constant", text, certain=True)]
    if accuracy <= chance:
        certain = bdtr(right, count, min(2 * chance, 0.9)) < SIGNIFICANT
        text = f"{name} is at chance: val accuracy {accuracy:.3f} on {count} images, chance is {chance:.3f}. {check}"
        return [Fault("teacher_at_chance", text, bool(certain))]
    if accuracy <= majority < 1:
        text = (
            f"{name} is no better than the most common class: val accuracy {accuracy:.3f}, its share is {majority:.3f}. {check}"
        )
        return [Fault("teacher_below_majority", text, certain=False)]
    return []


def judge_normalization(
    predicted: Tensor, others: Tensor, label: Tensor, name: str, teacher: OnlineTeacher, key: str = "teacher"
) -> list[Fault]:
    """Return a fault if a teacher predicts worse, classes [N], than with one of its alternative normalizations [N,A].

    It is certain if McNemar's exact test says so of the best one, on the images that only one of the two gets right.
    """
    right, others_right = predicted == label, others == label[:, None]
    best = int(others_right.sum(0).argmax())
    other, other_right = teacher.alternatives[best], others_right[:, best]
    if other_right.sum() <= right.sum():
        return []
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (other.mean, other.std))
    text = (
        f"{name} has another normalization than its weights seem to expect: val accuracy {right.double().mean():.3f}, and "
        f"{other_right.double().mean():.3f} with {key}.network.mean=[{mean}] {key}.network.std=[{std}], {other.origin}: "
        "set these"
    )
    certain = mcnemar(other_right, right) < SIGNIFICANT
    return [Fault("teacher_normalization", text, certain)]


def undetermined(calibration: Calibration, name: str) -> list[Fault]:
    """Return a fault if val does not determine the calibration."""
    if calibration.doubt is None:
        return []
    text = f"{name} is not calibrated: {calibration.doubt}. Use more val images (data.val_share), or calibration=none"
    return [Fault("calibration_undetermined", text, certain=False)]
