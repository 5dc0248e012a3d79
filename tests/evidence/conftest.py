"""A small declaration, and configs as kdx-train composes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from kdx.config.check import check, conf_dir
from kdx.config.schema import RunConfig
from kdx.evidence.declaration import Declaration, declare

HERE = str(Path(__file__).parent)
if HERE not in sys.path:  # fake_runs, for the tests and for worker processes
    sys.path.append(HERE)

KINDS = "kdx.evidence.kinds"
SMALL: dict[str, Any] = {
    "name": "small",
    "title": "Small",
    "seeds": [0, 1],
    "jobs": 1,
    "only": None,
    "overrides": ["logger=none", "trainer=cpu", "callbacks=none", "selection=last", "trainer.max_epochs=3"],
    "formats": ["png"],
    "families": {
        "one": {
            "paper": "A paper",
            "about": "A setting.",
            "systems": {
                "labels": ["experiment=supervised_digits"],
                "warm": [["experiment=cqkd_digits", ["temperature.value=2"]]],
                "hot": ["experiment=cqkd_digits", "temperature.value=8"],
                "unused": ["experiment=cqkd_digits", "temperature.value=9"],
            },
            "claims": {
                "heat_helps": {
                    "sentence": "The hotter, the better.",
                    "tests": [
                        {
                            "_target_": f"{KINDS}.Order",
                            "systems": ["labels", "warm", "hot"],
                            "metric": "test/student/accuracy",
                            "direction": "rises",
                        }
                    ],
                },
                "loss_falls": {
                    "sentence": "The loss ends low.",
                    "note": "As it should.",
                    "tests": [{"_target_": f"{KINDS}.Level", "systems": "hot", "metric": "train/loss@end", "below": 9}],
                },
            },
            "figures": {
                "curve": {
                    "_target_": "kdx.evidence.figures.Trajectories",
                    "title": "Loss",
                    "column": "train/loss",
                    "label": "loss",
                    "systems": {"hot": "hot", "never run": "unused"},
                }
            },
        }
    },
}


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Declaration]:
    """The small declaration, changed by dotted keys."""

    def build(**changes: Any) -> Declaration:
        cfg = OmegaConf.create({**SMALL, "outputs": str(tmp_path / "outputs")})
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
        return declare(cfg)

    return build


@pytest.fixture
def composer() -> Iterator[Callable[[list[str]], RunConfig]]:
    """Composes like kdx-train."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield lambda overrides: check(compose("train", overrides))
