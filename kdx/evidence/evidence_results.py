"""What the runs of a plan say, by family, system and seed; and why some do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdx.evidence import run_metrics
from kdx.evidence.declaration import Claim
from kdx.evidence.findings import Finding
from kdx.evidence.planned_run import PlannedRun
from kdx.report.plots import Curve


@dataclass(frozen=True)
class EvidenceResults:
    """The runs of a plan, and what went wrong with some, by key."""

    runs: Sequence[PlannedRun]
    errors: Mapping[str, str] = field(default_factory=dict)

    def of(self, family: str, system: str) -> list[PlannedRun]:
        """The finished runs of a system."""
        return [run for run in self.runs if run.family == family and run.system == system and run.finished]

    def read(self, family: str, system: str, metric: str) -> dict[int, float]:
        """A metric of a system by seed. ValueError if a run has no finite number of that name."""
        return {run.seed: run_metrics.value(run.folder, metric) for run in self.of(family, system)}

    def follow(self, family: str, system: str, column: str) -> dict[int, Curve]:
        """A column of metrics.csv of a system by seed."""
        return {run.seed: run_metrics.curve(run.folder, column) for run in self.of(family, system)}

    def missing(self, family: str, systems: set[str]) -> str:
        """Why not all runs of these systems are there; empty if they are."""
        for run in self.runs:
            if run.family == family and run.system in systems and not run.finished:
                return f"{run.system} seed {run.seed}: {self.errors.get(run.key, 'it was not finished')}"
        return ""

    def judge(self, claim: Claim) -> Finding:
        """The finding of a claim; "not run" where a run that it needs is not there, or has no finite number."""
        words = (claim.family, claim.name, claim.paper, claim.sentence)
        missing = self.missing(claim.family, {system for system, _ in claim.needs})
        if missing:
            return Finding(*words, missing=missing, note=claim.note)

        def read(system: str, metric: str) -> dict[int, float]:
            return self.read(claim.family, system, metric)

        try:
            comparisons = tuple(comparison for test in claim.tests for comparison in test.comparisons(read))
        except ValueError as error:
            return Finding(*words, missing=str(error), note=claim.note)
        return Finding(*words, comparisons, note=claim.note)
