"""Runs that take no time: they write the numbers that a real one would. Worker processes import this module by name."""

from __future__ import annotations

import json
import os
import time

from kdx.evidence.planned_run import PlannedRun


def write_numbers(run: PlannedRun, **metrics: float) -> None:
    """metrics.json and metrics.csv of a finished run, whose student is better the higher its seed and its temperature."""
    temperature = (run.config.temperature or {}).get("value", 0.0)
    numbers = {"seconds": 1.0, "test/student/accuracy": 0.5 + 0.01 * run.seed + 0.02 * temperature, **metrics}
    hardware = {"cpu_cores": 2, "platform": "here"}
    source = {"git_commit": "abc", "git_dirty": False, "hardware": hardware, "versions": {"torch": "2", "kdx": "0"}}
    run.folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{epoch},{10 - epoch},\n,,{epoch}\n" for epoch in range(3))
    (run.folder / "metrics.csv").write_text("epoch,train/loss,val/kl\n" + rows.replace("\n,,", "\n0,,"))
    report = {"metrics": numbers, "selection": {"rule": "last"}, "provenance": source}
    (run.folder / "metrics.json").write_text(json.dumps(report))


def succeed(run: PlannedRun) -> None:
    """Write numbers; count how often this run was trained."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with (run.folder.parent / f"{run.key}.times").open("a") as file:
        file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}\n")
    write_numbers(run)


def some_fail(run: PlannedRun) -> None:
    """Seed 1 raises an error, seed 2 takes its process down."""
    if run.seed == 1:
        raise RuntimeError("no memory\nand more")
    if run.seed == 2:
        os._exit(9)
    succeed(run)


def hang(run: PlannedRun) -> None:
    """Never ends by itself."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "began").touch()
    time.sleep(600)


def leave_nothing(run: PlannedRun) -> None:
    """End without numbers."""
