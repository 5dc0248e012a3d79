"""Equal-budget baselines: the same student, data, budget and seed, without the component under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal

Baseline = Literal["scratch", "label_smoothing", "fixed_t", "self"]
Node = dict[str, Any]
Option = Callable[[str], Node]  # "losses/ce" -> the content of conf/losses/ce.yaml

TAUGHT = ("teacher", "peers", "calibration", "temperature", "losses", "resolution.teacher", "interpolation.teacher")
ADDRESSES = ("data.teacher_view",)
METHOD = ("method",)  # a group of options, which says how the teacher teaches
# The overrides that each baseline fixes: groups, and config paths in which it may differ from the runs it is compared with.
DETERMINED: Mapping[str, tuple[str, ...]] = {
    "scratch": TAUGHT + ADDRESSES + METHOD,
    "label_smoothing": TAUGHT + ADDRESSES + METHOD,
    "fixed_t": ("temperature",),
    "self": ("teacher", "resolution.teacher"),
}
SMOOTHING = 0.1  # Szegedy et al. 2016 (arXiv:1512.00567)


def as_baseline(plain: Node, option: Option) -> Node:
    """Return the config `plain`, changed by its `baseline`; unchanged without one.

    Applying a baseline twice gives the same config.

    Args:
        plain: The config of a run as plain data.
        option: Returns the content of an option file, such as "losses/ce".

    Raises:
        ValueError: If the baseline does not apply to this run.
    """
    baseline = plain.get("baseline")
    return plain if baseline is None else BASELINES[baseline](deepcopy(plain), option)


def _scratch(plain: Node, option: Option) -> Node:
    """Training from labels only."""
    for key in ("teacher", "peers", "calibration", "temperature"):
        plain[key] = None
    plain["losses"] = option("losses/ce")
    plain["data"]["teacher_view"] = "full"
    return plain


def _label_smoothing(plain: Node, option: Option) -> Node:
    """Training from smoothed labels only."""
    plain = _scratch(plain, option)
    plain["losses"]["ce"]["loss"]["label_smoothing"] = SMOOTHING
    return plain


def _fixed_t(plain: Node, option: Option) -> Node:
    """The same distillation at the constant temperature that is usual in the literature, 4."""
    constant = option("temperature/constant")
    if plain["temperature"] is None:
        raise ValueError("baseline=fixed_t needs a distillation temperature, but temperature=none: use baseline=scratch")
    if plain["temperature"]["_target_"] == constant["_target_"] and plain["temperature"] != constant:
        raise ValueError("baseline=fixed_t has no effect: the temperature is already constant; sweep temperature.value instead")
    plain["temperature"] = constant
    return plain


def _self(plain: Node, option: Option) -> Node:
    """Self-distillation: the teacher is the student's network, trained first from labels at the student's resolution."""
    teacher = plain["teacher"]
    if teacher is None or not teacher.get("recipe"):
        raise ValueError(
            "baseline=self trains a teacher with the student's network, which needs teacher.recipe: use teacher=online"
        )
    side = plain["resolution"]["student"]
    unused = dict.fromkeys(("checkpoint", "key", "run", "members", "resolution"))
    plain["teacher"] = {**teacher, "network": deepcopy(plain["student"]), **unused}
    plain["resolution"]["teacher"] = max(side) if isinstance(side, list) else side
    return plain


BASELINES: Mapping[str, Callable[[Node, Option], Node]] = {
    "scratch": _scratch,
    "label_smoothing": _label_smoothing,
    "fixed_t": _fixed_t,
    "self": _self,
}
