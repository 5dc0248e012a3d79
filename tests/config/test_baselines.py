"""Equal-budget baselines: what they change, and that they change nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from kdx.config.baselines import BASELINES, DETERMINED
from kdx.config.check import check
from kdx.config.errors import ConfigError
from kdx.config.schema import to_plain

SETTINGS = ("baseline", "baselines")


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
@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_differs_only_where_it_decides(
    plain_config: Callable[..., DictConfig], experiment: str, baseline: str
) -> None:
    treatment = plain_config(f"experiment={experiment}")
    if baseline == "self" and treatment.teacher is None:
        return
    if baseline == "fixed_t" and experiment != "ctkd_digits":
        with pytest.raises(ConfigError, match="already constant; sweep temperature"):
            plain_config(f"experiment={experiment}", "baseline=fixed_t")
        return
    as_baseline = plain_config(f"experiment={experiment}", f"baseline={baseline}")
    paths = differing(treatment, as_baseline)
    assert paths
    assert all(any(path == p or path.startswith(f"{p}.") for p in DETERMINED[baseline]) for path in paths), paths
    assert as_baseline.trainer == treatment.trainer and as_baseline.data == treatment.data
    again = OmegaConf.create(to_plain(check(as_baseline)))
    assert not differing(as_baseline, again)  # a baseline of a baseline is the same: config.yaml runs again


def test_what_the_baselines_are(plain_config: Callable[..., DictConfig]) -> None:
    scratch = plain_config("experiment=cqkd_digits", "baseline=scratch")
    assert scratch.teacher is None and scratch.temperature is None and list(scratch.losses) == ["ce"]
    assert scratch.losses.ce.weight == 1.0 and scratch.losses.ce.loss.label_smoothing == 0.0
    assert plain_config("baseline=label_smoothing").losses.ce.loss.label_smoothing == 0.1
    fixed = plain_config("experiment=ctkd_digits", "baseline=fixed_t")
    assert fixed.temperature == {"_target_": "kdx.temperatures.schedules.Constant", "value": 4.0}
    own = plain_config("experiment=cqkd_digits", "baseline=self", "network@student=cifar_resnet14")
    assert own.teacher.network.architecture == "cifar_resnet14" and own.resolution.teacher == own.resolution.student == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=supervised_digits", "baseline=fixed_t"], "but temperature=none: use baseline=scratch"),
        (["experiment=supervised_digits", "baseline=self"], "needs teacher.recipe: use teacher=online"),
        (["baseline=scrach"], "baseline=scrach"),
    ],
)
def test_a_baseline_that_says_nothing(plain_config: Callable[..., DictConfig], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain_config(*overrides)


def test_selection_ema_needs_an_average(plain_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError, match="add callbacks=ema"):
        plain_config("selection=ema")
    assert plain_config("selection=ema", "callbacks=ema").selection == "ema"
