"""The runs that the claims require: one per system and seed, each with its config, fingerprint and folder."""

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

Compose = Callable[[list[str]], DictConfig]  # overrides of kdx-train -> config; raises ConfigError

# Config keys that do not affect the metrics of a run.
IRRELEVANT = ("name", "tags", "outputs", "logger")


def plan(declared: Declaration, compose: Compose, outputs: Path) -> Iterator[PlannedRun]:
    """Yield the runs ordered by seed, so that an interruption leaves complete seeds. All systems are checked and built first.

    Args:
        declared: Systems, claims and seeds.
        compose: Composes a run config from overrides.
        outputs: The folder of all outputs.

    Raises:
        ConfigError: If the config of a system or its teacher is invalid, or if it does not write a metric that a claim reads.
    """
    systems = []
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
            systems.append((family.name, system, overrides, cfg))
    for seed in declared.seeds:
        for name, system, overrides, cfg in systems:
            config: Any = OmegaConf.to_container(cfg)
            config["seed"] = seed
            key = run_key(config)
            yield PlannedRun(name, system, seed, (*overrides, f"seed={seed}"), config, key, outputs / "evidence" / "runs" / key)


def run_key(config: dict[str, Any]) -> str:
    """Return the fingerprint of a run: of its config without names, paths and loggers, and of the version of kdx."""
    relevant = {key: value for key, value in config.items() if key not in IRRELEVANT}
    return fingerprint({"config": relevant, "kdx": kdx.__version__})
