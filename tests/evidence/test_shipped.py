"""The claims that kdx ships: every system and its teacher can be run, and writes what the claims read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose

from kdx.config.schema import RunConfig
from kdx.evidence.declaration import declare
from kdx.evidence.plan import plan


@pytest.mark.parametrize("option", ["full", "fast", "calibration", "mnist"])
def test_all_systems_of_all_claims_can_be_run(option: str, composer: Callable[..., RunConfig], tmp_path: Path) -> None:
    cfg = compose("evidence", [f"evidence={option}", f"outputs={tmp_path}"])  # `composer` has initialized Hydra
    declared = declare(cfg)
    claims = [claim for family in declared.families for claim in family.claims]
    papers = {"cqkd", "funmatch", "ctkd"}
    expected = {"calibration": {"teacher_calibration"}, "mnist": {f"mnist_{paper}" for paper in papers}}.get(option, papers)
    assert {family.name for family in declared.families} == expected
    runs = list(plan(declared, composer, tmp_path))
    read = {(claim.family, system) for claim in claims for system, _ in claim.needs}
    assert {(run.family, run.system) for run in runs} == read
    assert len(declared.seeds) == (3 if option == "fast" else 5)
    if option == "calibration":  # teachers of each seed
        assert {member.recipe["seed"] - run.seed for run in runs for member in run.config.members.values()} == {0}
    assert all(run.config.selection == "last" for run in runs)  # nothing is chosen on test
