"""The main function of kdx-evidence: run the missing systems, test the claims, write tables and figures."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from kdx.evidence import run_metrics
from kdx.evidence.declaration import Declaration
from kdx.evidence.evidence_results import EvidenceResults
from kdx.evidence.plan import Compose, plan
from kdx.evidence.planned_run import PlannedRun
from kdx.evidence.progress import Board, Forecast
from kdx.evidence.verdicts import show
from kdx.evidence.workers import Train, train, work
from kdx.evidence.writeup import summary, write
from kdx.run.durations import duration

log = logging.getLogger("kdx")


def gather(declared: Declaration, compose: Compose, task: Train = train) -> bool:
    """Run the systems that are not finished, test the claims and write the report; return whether all runs succeeded.

    Args:
        declared: Systems and claims.
        compose: Composes a run config from overrides.
        task: Trains one run.

    Raises:
        ConfigError: Before any run, if a system or claim is invalid.
    """
    outputs = Path(declared.outputs).expanduser().resolve()
    log.info("checking %d systems", sum(len(family.needed) for family in declared.families))
    runs = list(plan(declared, compose, outputs))
    folder = outputs / "evidence" / declared.name
    folder.mkdir(parents=True, exist_ok=True)
    errors = execute(runs, declared.jobs or os.cpu_count() or 1, folder, task)
    results = EvidenceResults(runs, errors)
    findings = [results.judge(claim) for family in declared.families for claim in family.claims]
    write(declared, findings, results, folder)
    show(findings, f"{summary(findings)} · {folder / 'report.md'}")
    return not errors


def execute(runs: list[PlannedRun], jobs: int, folder: Path, task: Train = train) -> dict[str, str]:
    """Train the runs that are not finished, identical runs once; return the errors of failed runs by key.

    Args:
        runs: All planned runs.
        jobs: The number of parallel processes.
        folder: The folder of the process logs.
        task: Trains one run.
    """
    distinct = list({run.key: run for run in runs}.values())
    waiting = {run.key: run for run in distinct if not run.finished}
    forecast, errors = Forecast(), {}
    for run in distinct:
        if run.finished:
            forecast.learn(run, float(run_metrics.report(run.folder)["metrics"].get("seconds", 0.0)))
    if not waiting:
        log.info("all %d runs are already finished", len(distinct))
        return {}
    left = forecast.left(list(waiting.values()), jobs)
    remaining = f", about {duration(left)}" if left is not None else ""
    finished = len(distinct) - len(waiting)
    log.info("%d runs, %d already finished; %d parallel jobs%s", len(distinct), finished, jobs, remaining)
    started = time.monotonic()
    try:
        with Board(len(distinct), finished) as board:
            for run, error in work(list(waiting.values()), jobs, folder, task):
                del waiting[run.key]
                if error:
                    errors[run.key] = error
                else:
                    forecast.learn(run, float(run_metrics.report(run.folder)["metrics"].get("seconds", 0.0)))
                board.ended(run, error, forecast.left(list(waiting.values()), jobs))
    except KeyboardInterrupt:
        log.info("interrupted; %d finished runs are kept: repeat the command to continue", len(distinct) - len(waiting))
        raise
    log.info("%s", f"{len(distinct) - len(errors)} runs finished after {duration(time.monotonic() - started)}")
    return errors
