"""How long do kdx-sweep status, kdx-compare and kdx-report take for 10,000 runs? Prints seconds, and the size of the page.

The runs are copies of two real ones with other seeds, temperatures and numbers.

python scripts/checks/many_runs.py --runs 10000
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from checking import run, start

from kdx.run.sweep_folder import read_plan, write_plan

SHORT = "trainer=cpu logger=none preflight=off teacher.recipe.trainer.max_epochs=2 trainer.max_epochs=3"
SEEDS = 10  # runs of a group
GOALS = {"kdx-sweep status": 5.0, "kdx-report": 20.0}  # seconds of the first call
PAGE = 10e6  # bytes


def copies(sweep: Path, count: int) -> None:
    """Copy the first job of a sweep until there are `count` of them, with other seeds, temperatures and numbers."""
    plan = read_plan(sweep)
    assert plan is not None
    jobs, draw = dict(plan.jobs), random.Random(0)
    first = sweep / next(iter(jobs))
    config = (first / "config.yaml").read_text(encoding="utf-8")
    metrics = json.loads((first / "metrics.json").read_text(encoding="utf-8"))
    for number in range(len(jobs), count):
        name, seed, temperature = f"{number}-copy", number % SEEDS, 1 + number // SEEDS / 100
        shutil.copytree(first, sweep / name)
        changed = config.replace("\nseed: 0\n", f"\nseed: {seed}\n").replace("value: 10.0\n", f"value: {temperature}\n")
        (sweep / name / "config.yaml").write_text(changed, encoding="utf-8")
        values = {key: value * draw.uniform(0.9, 1.1) for key, value in metrics["metrics"].items()}
        (sweep / name / "metrics.json").write_text(json.dumps({**metrics, "metrics": values}), encoding="utf-8")
        jobs[name] = (f"seed={seed}", f"temperature.value={temperature}")
    write_plan(sweep, dataclasses.replace(plan, jobs=jobs))


def measure(root: Path, given: argparse.Namespace) -> bool:
    """Print how long each command takes, twice, and return whether the first calls are within the goals."""
    words = ["-m", "seed=0,1", "temperature.value=10.0", *SHORT.split(), "sweep=many", f"outputs={root}", "baselines=[]"]
    if start(words, root / "many.log").wait():
        print(f"failed: see {root}/many.log")
        return False
    sweep, right = root / "sweeps" / "many", True
    copies(sweep, given.runs)
    page = root / "report.html"
    commands = {
        "kdx-sweep status": ["kdx.cli.sweep_status", "status", str(sweep)],
        "kdx-compare": ["kdx.cli.compare", str(sweep), "-o", str(root / "table.md")],
        "kdx-report": ["kdx.cli.report", str(sweep), "-o", str(page)],
    }
    for name, command in commands.items():
        seconds = []
        for _ in range(2):
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", f"import {command[0]} as c; c.main({command[1:]!r})"],
                check=False,
                capture_output=True,
                text=True,
            )
            seconds.append(time.monotonic() - began)
        goal = GOALS.get(name)
        aim = "" if goal is None else f" (goal {goal:.0f} s)"
        print(f"{name}: {seconds[0]:.1f} s{aim}, again {seconds[1]:.1f} s, status {done.returncode}", flush=True)
        right &= done.returncode == 0 and (goal is None or seconds[0] <= goal)
    print(f"page: {page.stat().st_size / 1e6:.1f} MB (goal {PAGE / 1e6:.0f} MB)")
    return right and page.stat().st_size < PAGE


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    run(parser, measure)


if __name__ == "__main__":
    main()
