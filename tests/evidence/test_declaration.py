"""A typo in a declaration is told before any run, with what there is instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.evidence.declaration import Declaration
from kdx.evidence.plan import plan

Small = Callable[..., Declaration]
CLAIM = "families__one__claims__heat_helps"
TEST = {"_target_": "kdx.evidence.kinds.Order", "systems": ["labels", "hot"], "metric": "test/kl", "direction": "rises"}


def test_overrides_are_flattened_and_needs_are_found(small: Small) -> None:
    (family,) = small().families
    assert family.systems["warm"] == ("experiment=cqkd_digits", "temperature.value=2")
    assert list(family.needed) == ["labels", "warm", "hot"]
    assert family.needed["hot"] == {"test/student/accuracy": "heat_helps", "train/loss@end": "loss_falls"}


@pytest.mark.parametrize(
    ("only", "claims"),
    [
        (["one"], ["heat_helps", "loss_falls"]),
        (["heat_helps"], ["heat_helps"]),
        (["one.loss_falls"], ["loss_falls"]),
        (None, ["heat_helps", "loss_falls"]),
    ],
)
def test_only_chooses_claims(small: Small, only: list[str] | None, claims: list[str]) -> None:
    assert [claim.name for family in small(only=only).families for claim in family.claims] == claims


@pytest.mark.parametrize(("given", "seeds"), [([3, 1], (3, 1)), ("2-4", (2, 3, 4)), ("0 - 1", (0, 1))])
def test_seeds_are_a_list_or_a_range(small: Small, given: Any, seeds: tuple[int, ...]) -> None:
    assert small(seeds=given).seeds == seeds


MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown system in a claim": (
        {f"{CLAIM}__tests": [{**TEST, "systems": ["labels", "hott"]}]},
        "unknown system 'hott'",
        "'hot'",
    ),
    "unknown system in a figure": (
        {"families__one__figures__curve__systems": {"x": "worm"}},
        "unknown system 'worm'",
        "'warm'",
    ),
    "unknown argument of a test": ({f"{CLAIM}__tests": [{**TEST, "direktion": "rises"}]}, "direktion", "Unexpected"),
    "unknown kind": ({f"{CLAIM}__tests": [{**TEST, "_target_": "kdx.evidence.kinds.Odrer"}]}, "Odrer", "claims.heat_helps"),
    "something that is no test": ({f"{CLAIM}__tests": [{"_target_": "kdx.data.digits.Digits"}]}, "is not a Test", "choose"),
    "no target": ({f"{CLAIM}__tests": [{"metric": "x"}]}, "no _target_", "add one"),
    "no test": ({f"{CLAIM}__tests": []}, "is empty", "at least one"),
    "unknown key of a claim": ({f"{CLAIM}__sentense": "x"}, "sentense", "sentence"),
    "unknown key of a family": ({"families__one__system": {}}, "system", "systems"),
    "unknown claim": ({"only": ["heat_help"]}, "Unknown claim 'heat_help'", "'heat_helps'"),
    "one seed": ({"seeds": [3]}, "seeds", "two or more seeds"),
    "a seed twice": ({"seeds": [3, 3]}, "seeds", "each seed once"),
    "a backward range": ({"seeds": "4-2"}, "seeds", "two or more"),
    "no process": ({"jobs": 0}, "jobs=0", "greater than or equal to 1"),
    "unknown format": ({"formats": ["gif"]}, "gif", "png"),
}


@pytest.mark.parametrize(("changes", "what", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_told(small: Small, changes: dict[str, Any], what: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as told:
        small(**changes)
    assert what in str(told.value) and remedy in str(told.value)


METRICS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown metric": ({"metric": "test/student/acuracy"}, "claims.heat_helps, system labels", "'test/student/accuracy'"),
    "no teacher, no kl": ({"metric": "test/kl"}, "unknown metric 'test/kl'", "Available"),
    "no temperature to follow": ({"metric": "train/temperature@end"}, "unknown metric 'train/temperature'", "train/loss"),
    "an epoch that never comes": ({"metric": "train/loss@4"}, "epoch '4'", "from 1 to 3"),
    "no epoch": ({"metric": "train/loss@last"}, "'last'", "end"),
}


@pytest.mark.parametrize(("change", "what", "remedy"), METRICS.values(), ids=METRICS.keys())
def test_a_metric_that_no_run_writes_is_told(
    small: Small, composer: Callable[..., RunConfig], tmp_path: Path, change: dict[str, Any], what: str, remedy: str
) -> None:
    declared = small(**{f"{CLAIM}__tests": [{**TEST, **change}]})
    with pytest.raises(ConfigError) as told:
        list(plan(declared, composer, tmp_path))
    assert what in str(told.value) and remedy in str(told.value)
    assert not list(tmp_path.iterdir())


def test_overrides_that_cannot_run_are_told(small: Small, composer: Callable[..., RunConfig], tmp_path: Path) -> None:
    declared = small(families__one__systems__hot=["experiment=cqkd_digits", "temperature.value=-1"])
    with pytest.raises(ConfigError, match=r"systems\.hot: temperature\.value=-1"):
        list(plan(declared, composer, tmp_path))


def test_a_teacher_that_cannot_be_trained_is_told(small: Small, composer: Callable[..., RunConfig], tmp_path: Path) -> None:
    outside = ["experiment=none", "data=digits_from_glyphs", "losses=[kl]"]  # whose images have no labels
    with pytest.raises(ConfigError, match=r"systems\.hot: losses\.ce needs labels"):
        list(plan(small(families__one__systems__hot=outside), composer, tmp_path))
    taught = [*outside, "+data@teacher.recipe.data=digits"]
    assert list(plan(small(families__one__systems__hot=taught), composer, tmp_path))
