"""The whole job: run what is missing, judge the claims, write tables and figures."""

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
from kdx.evidence.progress import Board, Forecast, duration
from kdx.evidence.verdicts import show
from kdx.evidence.workers import Train, train, work
from kdx.evidence.writeup import summary, write

log = logging.getLogger("kdx")


def gather(declared: Declaration, compose: Compose, task: Train = train) -> bool:
    """Run what is not there yet, and write the report; whether all runs ended well. ConfigError before any run."""
    outputs = Path(declared.outputs).expanduser().resolve()
    log.info("checking %d systems", sum(len(family.needed) for family in declared.families))
    runs = list(plan(declared, compose, outputs))
    folder = outputs / "evidence" / declared.name
    folder.mkdir(parents=True, exist_ok=True)
    errors = execute(runs, declared.jobs or os.cpu_count() or 1, folder, task)
    found = EvidenceResults(runs, errors)
    findings = [found.judge(claim) for family in declared.families for claim in family.claims]
    write(declared, findings, found, folder)
    show(findings, f"{summary(findings)} · {folder / 'report.md'}")
    return not errors


def execute(runs: list[PlannedRun], jobs: int, folder: Path, task: Train = train) -> dict[str, str]:
    """Train the runs that are not finished, equal ones once; gives what went wrong by key."""
    distinct = list({run.key: run for run in runs}.values())
    waiting = {run.key: run for run in distinct if not run.finished}
    forecast, errors = Forecast(), {}
    for run in distinct:
        if run.finished:
            forecast.learn(run, float(run_metrics.report(run.folder)["metrics"].get("seconds", 0.0)))
    if not waiting:
        log.info("all %d runs were there", len(distinct))
        return {}
    left = forecast.left(list(waiting.values()), jobs)
    known = f", about {duration(left)}" if left is not None else ""
    log.info("%d runs, %d of them there; %d at a time%s", len(distinct), len(distinct) - len(waiting), jobs, known)
    started = time.monotonic()
    try:
        with Board(len(distinct), len(distinct) - len(waiting)) as board:
            for run, error in work(list(waiting.values()), jobs, folder, task):
                del waiting[run.key]
                if error:
                    errors[run.key] = error
                else:
                    forecast.learn(run, float(run_metrics.report(run.folder)["metrics"].get("seconds", 0.0)))
                board.ended(run, error, forecast.left(list(waiting.values()), jobs))
    except KeyboardInterrupt:
        log.info("stopped; the %d runs that are there are kept: the same command goes on", len(distinct) - len(waiting))
        raise
    log.info("%s", f"{len(distinct) - len(errors)} runs are there after {duration(time.monotonic() - started)}")
    return errors
