"""The runs that the claims require: one per system and seed, each with its config, fingerprint and folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdx.config.errors import ConfigError
from kdx.config.identity import digest
from kdx.config.schema import RunConfig, to_plain
from kdx.evidence.declaration import Declaration
from kdx.evidence.planned_run import PlannedRun
from kdx.evidence.run_metrics import check_metric
from kdx.experiment import build
from kdx.experiment.teacher import existing, teacher_run
from kdx.run.provenance import VERSION

Compose = Callable[[list[str]], RunConfig]  # overrides of kdx-train -> checked config; raises ConfigError

# Config keys that do not affect the metrics of a run.
SEED = "${seed}"  # in overrides: the seed of the run, as for a teacher of its own
IRRELEVANT = ("name", "tags", "outputs", "logger", "baselines", "measured")


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
                composed = compose(list(overrides))
                config = replace(composed, outputs=str(outputs), name=f"{family.name}/{system}")
                parts = build.parts(config)
                for path, member in config.members.items():
                    if existing(parts, path) is None:
                        build.parts(teacher_run(config, member))  # the run that trains the teacher
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            for metric, claim in reasons.items():
                check_metric(metric, parts, f"families.{family.name}.claims.{claim}, system {system}")
            systems.append((family.name, system, overrides, config))
    for seed in declared.seeds:
        for name, system, overrides, config in systems:
            seeded = replace(config, seed=seed)
            if any(SEED in override for override in overrides):
                composed = compose([*overrides, f"seed={seed}"])
                seeded = replace(composed, outputs=str(outputs), name=config.name)
            key = run_key(to_plain(seeded))
            yield PlannedRun(name, system, seed, (*overrides, f"seed={seed}"), seeded, key, outputs / "evidence" / "runs" / key)


def run_key(config: dict[str, Any]) -> str:
    """Return the fingerprint of a run: of its config without names, paths and loggers, and of the version of kdx."""
    relevant = {key: value for key, value in config.items() if key not in IRRELEVANT}
    return digest({"config": relevant, "kdx": VERSION})
