"""Equal-budget controls: what they change, and that they change nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from kdx.config import ConfigError, check
from kdx.controls import CONTROLS, DETERMINED

SETTINGS = ("control", "controls")


def flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and leaves."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flat(value, f"{path}.{key}" if path else key)
    else:
        yield path, node


def differing(a: DictConfig, b: DictConfig) -> set[str]:
    """The paths at which two configs differ."""
    one, two = (dict(flat(OmegaConf.to_container(cfg))) for cfg in (a, b))
    return {path for path in one.keys() | two.keys() if one.get(path, "absent") != two.get(path, "absent")} - set(SETTINGS)


@pytest.mark.parametrize("experiment", ["cqkd_digits", "ctkd_digits", "funmatch_digits", "dml_digits"])
@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_differs_only_where_it_decides(config: Callable[..., DictConfig], experiment: str, control: str) -> None:
    treatment = config(f"experiment={experiment}")
    if control == "self" and treatment.teacher is None:
        return
    if control == "fixed_t" and experiment != "ctkd_digits":
        with pytest.raises(ConfigError, match="never moves: sweep temperature"):
            config(f"experiment={experiment}", "control=fixed_t")
        return
    controlled = config(f"experiment={experiment}", f"control={control}")
    paths = differing(treatment, controlled)
    assert paths
    assert all(any(path == p or path.startswith(f"{p}.") for p in DETERMINED[control]) for path in paths), paths
    assert controlled.trainer == treatment.trainer and controlled.data == treatment.data
    assert not differing(controlled, check(controlled))  # a control of a control is the same: config.yaml runs again


def test_what_the_controls_are(config: Callable[..., DictConfig]) -> None:
    scratch = config("experiment=cqkd_digits", "control=scratch")
    assert scratch.teacher is None and scratch.temperature is None and list(scratch.losses) == ["ce"]
    assert scratch.losses.ce.weight == 1.0 and scratch.losses.ce.loss.label_smoothing == 0.0
    assert config("control=label_smoothing").losses.ce.loss.label_smoothing == 0.1
    fixed = config("experiment=ctkd_digits", "control=fixed_t")
    assert fixed.temperature == {"_target_": "kdx.temperatures.schedules.Constant", "value": 4.0}
    own = config("experiment=cqkd_digits", "control=self", "network@student=cifar_resnet14")
    assert own.teacher.network.architecture == "cifar_resnet14" and own.resolution.teacher == own.resolution.student == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=supervised_digits", "control=fixed_t"], "this run has none: use control=scratch"),
        (["experiment=supervised_digits", "control=self"], "use it with teacher=online"),
        (["control=scrach"], "control=scrach"),
    ],
)
def test_a_control_that_says_nothing(config: Callable[..., DictConfig], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*overrides)


def test_selection_ema_needs_an_average(config: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError, match="add callbacks=ema"):
        config("selection=ema")
    assert config("selection=ema", "callbacks=ema").selection == "ema"
