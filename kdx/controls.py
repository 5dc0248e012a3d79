"""Equal-budget controls: the same student, data, budget and seed, without what is to be shown to matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

Control = Literal["scratch", "label_smoothing", "fixed_t", "self"]
Node = dict[str, Any]
Option = Callable[[str], Node]  # "losses/ce" -> what conf/losses/ce.yaml says

TAUGHT = ("teacher", "peers", "calibration", "temperature", "losses", "resolution.teacher", "interpolation.teacher")
ADDRESSES = ("data.teacher_view",)
# What each control decides for itself: config paths in which it may differ from the runs it is compared with.
DETERMINED: Mapping[str, tuple[str, ...]] = {
    "scratch": TAUGHT + ADDRESSES,
    "label_smoothing": TAUGHT + ADDRESSES,
    "fixed_t": ("temperature",),
    "self": ("teacher", "resolution.teacher"),
}
SMOOTHING = 0.1  # Szegedy et al. 2016 (arXiv:1512.00567)


def controlled(plain: Node, option: Option) -> Node:
    """The run `plain` as its `control` would have it; itself without one. ValueError where such a control says nothing.

    What is already so stays so: a control of a control is the same.
    """
    control = plain.get("control")
    return plain if control is None else CONTROLS[control](deepcopy(plain), option)


def _scratch(plain: Node, option: Option) -> Node:
    """From labels only."""
    for key in ("teacher", "peers", "calibration", "temperature"):
        plain[key] = None
    plain["losses"] = option("losses/ce")
    plain["data"]["teacher_view"] = "full"
    return plain


def _label_smoothing(plain: Node, option: Option) -> Node:
    """From labels that are never certain, without a teacher."""
    plain = _scratch(plain, option)
    plain["losses"]["ce"]["loss"]["label_smoothing"] = SMOOTHING
    return plain


def _fixed_t(plain: Node, option: Option) -> Node:
    """The same distillation at a temperature that stays where the field puts it, at 4."""
    constant = option("temperature/constant")
    if plain["temperature"] is None:
        raise ValueError("control=fixed_t keeps the distillation temperature still, and this run has none: use control=scratch")
    if plain["temperature"]["_target_"] == constant["_target_"] and plain["temperature"] != constant:
        raise ValueError(
            "control=fixed_t keeps the distillation temperature still, and here it never moves: sweep temperature.value instead"
        )
    plain["temperature"] = constant
    return plain


def _self(plain: Node, option: Option) -> Node:
    """The student's own network as its teacher, trained first from labels at the student's resolution."""
    teacher = plain["teacher"]
    if teacher is None or not teacher.get("recipe"):
        raise ValueError(
            "control=self trains the student's network as its teacher, by teacher.recipe: use it with teacher=online"
        )
    side = plain["resolution"]["student"]
    plain["teacher"] = {**teacher, "network": deepcopy(plain["student"]), "checkpoint": None, "run": None, "members": None}
    plain["teacher"]["resolution"] = None
    plain["resolution"]["teacher"] = max(side) if isinstance(side, list) else side
    return plain


CONTROLS: Mapping[str, Callable[[Node, Option], Node]] = {
    "scratch": _scratch,
    "label_smoothing": _label_smoothing,
    "fixed_t": _fixed_t,
    "self": _self,
}
