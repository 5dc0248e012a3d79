"""Whether the outputs of a teacher are the data's classes in another order, as its answers on val show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from torch import Tensor

from kdx.networks.published import natural_order
from kdx.teachers.judgement import FEWEST, SIGNIFICANT, Fault, mcnemar

Numbers = NDArray[np.int64]
DISTINCT = 0.75  # of the classes are answered by their own output more than by any other, in an order that is claimed
MOST = 2000  # classes; with more, no order is fitted, because the matrix of classes and outputs is large


@dataclass(frozen=True)
class Classes:
    """The names of the data's classes, if it has any, and the remedy for outputs in an order [K]; None: it is not known."""

    names: Sequence[str] | None
    remedy: Callable[[Sequence[int] | None], str]


@dataclass(frozen=True)
class _Order:
    """An order of the outputs: the output of each class [K], the val images [N] that judge it, and the order to be set."""

    outputs: Numbers
    judged: NDArray[np.bool_]
    how: str
    proposed: Numbers | None


def judge_order(predicted: Tensor, label: Tensor, num_classes: int, name: str, classes: Classes) -> list[Fault]:
    """Return a fault if the classes [N] that a teacher predicts for val images with labels [N] are in another order.

    An order is claimed if McNemar's exact test says that it is better than the given one, and if it makes a trained network of
    the teacher: one with twice the accuracy of chance, 1/K, that answers most classes by their own output. The answers of an
    untrained network depend on the class too, but several classes share an answer.
    """
    answers, truth = predicted.cpu().numpy(), label.cpu().numpy()
    orders = [order for order in _tried(answers, truth, num_classes, classes.names) if _is_claimed(order, answers, truth)]
    if not orders:
        return []
    best = max(orders, key=lambda order: (answers == order.outputs[truth]).mean())
    given, other = ((answers == own)[best.judged].mean() for own in (truth, best.outputs[truth]))
    remedy = classes.remedy(None if best.proposed is None else best.proposed.tolist())
    text = (
        f"{name} has its outputs in another order than the data's classes: val accuracy {given:.3f}, and {other:.3f} {best.how}"
    )
    return [Fault("teacher_class_order", f"{text}: {remedy}", certain=True)]


def _tried(answers: Numbers, truth: Numbers, num_classes: int, names: Sequence[str] | None) -> Iterator[_Order]:
    """Yield the natural order of the names, and the one that fits half of the images best, which the other half judges."""
    if names is not None:
        place = [*natural_order(names), *range(len(names), num_classes)]  # data.num_classes may be more than the names
        first = next((k for k in range(num_classes) if place[k] != k), None)
        if first is not None:
            example = f"{names[place.index(first)]} before {names[first]}"
            outputs = np.array(place)
            yield _Order(outputs, truth >= 0, f"in the natural order of their names, as timm's ({example})", outputs)
    if num_classes <= MOST:
        fit, whole = _half(truth), len(np.unique(truth)) == num_classes
        proposed = _fitted(answers, truth, num_classes) if whole else None  # from all images; None if some class has none
        how = "in the order that the other half of val shows"
        yield _Order(_fitted(answers[fit], truth[fit], num_classes), ~fit, how, proposed)


def _half(truth: Numbers) -> NDArray[np.bool_]:
    """Return the mask [N] of every other image of each class, the first included."""
    by_class = np.argsort(truth, kind="stable")
    place = np.arange(len(truth)) - np.searchsorted(truth[by_class], truth[by_class])
    return (place % 2 == 0)[np.argsort(by_class)]


def _fitted(answers: Numbers, truth: Numbers, num_classes: int) -> Numbers:
    """Return the order [K] in which most answers are right; of equal ones, that with most outputs in their given place."""
    counts = np.eye(num_classes) / (num_classes + 1)
    np.add.at(counts, (truth, answers), 1)
    order: Numbers = linear_sum_assignment(counts, maximize=True)[1]
    return order


def _is_claimed(order: _Order, answers: Numbers, truth: Numbers) -> bool:
    answers, truth = answers[order.judged], truth[order.judged]
    if len(truth) < FEWEST:
        return False
    present, size = np.unique(truth), len(order.outputs)
    counts = csr_array((np.ones(len(truth)), (truth, answers)), shape=(size, size))[present]
    distinct = counts[np.arange(len(present)), order.outputs[present]] == counts.max(axis=1).toarray().ravel()
    right = answers == order.outputs[truth]
    taught = right.mean() >= min(2 / size, 0.75) and distinct.mean() >= DISTINCT
    return bool(taught and mcnemar(torch.from_numpy(right), torch.from_numpy(answers == truth)) < SIGNIFICANT)
