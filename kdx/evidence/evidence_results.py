"""Metrics and curves of the planned runs by family, system and seed, and the errors of failed runs."""

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
    """The planned runs, and the errors of failed runs by key."""

    runs: Sequence[PlannedRun]
    errors: Mapping[str, str] = field(default_factory=dict)

    def of(self, family: str, system: str) -> list[PlannedRun]:
        """Return the finished runs of a system."""
        return [run for run in self.runs if run.family == family and run.system == system and run.finished]

    def read(self, family: str, system: str, metric: str) -> dict[int, float]:
        """Return a metric of a system by seed.

        Raises:
            ValueError: If a run does not have this metric, or if its value is not finite.
        """
        return {run.seed: run_metrics.value(run.folder, metric) for run in self.of(family, system)}

    def read_curves(self, family: str, system: str, column: str) -> dict[int, Curve]:
        """Return a column of metrics.csv of a system by seed."""
        return {run.seed: run_metrics.curve(run.folder, column) for run in self.of(family, system)}

    def missing(self, family: str, systems: set[str]) -> str:
        """Return the reason why a run of these systems is not finished; "" if all runs are finished."""
        for run in self.runs:
            if run.family == family and run.system in systems and not run.finished:
                return f"{run.system} seed {run.seed}: {self.errors.get(run.key, 'the run did not finish')}"
        return ""

    def judge(self, claim: Claim) -> Finding:
        """Return the finding on a claim; its verdict is "not run" if a required run or a finite value is missing."""
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
