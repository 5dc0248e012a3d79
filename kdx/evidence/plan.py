"""Which runs the claims need: one per system and seed, each with its config, its fingerprint and its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

import kdx
from kdx.config.check import ConfigError, check, members
from kdx.evidence.declaration import Declaration
from kdx.evidence.planned_run import PlannedRun
from kdx.evidence.run_metrics import check_metric
from kdx.experiment import build
from kdx.experiment.teacher import graduate
from kdx.teachers.store import fingerprint

Compose = Callable[[list[str]], DictConfig]  # overrides of kdx-train -> config; ConfigError says what is wrong with them

# What a run's numbers do not depend on.
IRRELEVANT = ("name", "tags", "outputs", "logger")


def plan(declared: Declaration, compose: Compose, outputs: Path) -> Iterator[PlannedRun]:
    """The runs, seed by seed, so that a cut-off leaves whole seeds; every system is composed, checked and built first.

    ConfigError if a system or its teacher cannot be trained so, or if it writes no such metric as a claim wants to read.
    """
    found = []
    for family in declared.families:
        for system, reasons in family.needed.items():
            where = f"families.{family.name}.systems.{system}"
            overrides = (*declared.overrides, *family.systems[system])
            try:
                cfg = compose(list(overrides))
                with open_dict(cfg):
                    cfg.outputs, cfg.name = str(outputs), f"{family.name}/{system}"
                cfg = check(cfg)
                parts = build.parts(cfg)
                for member in members(cfg).values():
                    if member.checkpoint is None and not member.network.get("pretrained"):
                        build.parts(check(graduate(cfg, member)))  # the run that trains the teacher
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            for metric, claim in reasons.items():
                check_metric(metric, cfg, parts, f"families.{family.name}.claims.{claim}, system {system}")
            found.append((family.name, system, overrides, cfg))
    for seed in declared.seeds:
        for name, system, overrides, cfg in found:
            config: Any = OmegaConf.to_container(cfg)
            config["seed"] = seed
            key = run_key(config)
            yield PlannedRun(name, system, seed, (*overrides, f"seed={seed}"), config, key, outputs / "evidence" / "runs" / key)


def run_key(config: dict[str, Any]) -> str:
    """The fingerprint of a run: its whole config but for names and places, and the version of kdx."""
    relevant = {key: value for key, value in config.items() if key not in IRRELEVANT}
    return fingerprint({"config": relevant, "kdx": kdx.__version__})
