"""A sweep of 40 jobs, 3 of which fail, killed twice and repeated; then two commands at once on another one. Prints what it saw.

python scripts/checks/sweeps.py
python scripts/checks/sweeps.py --jobs 12 --folder FOLDER
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections import Counter
from pathlib import Path

from checking import run, start

from kdx.run import job
from kdx.run.sweep_folder import count, statuses

BROKEN = """
from torch import Tensor
from kdx.losses.objective import Loss
from kdx.types import Outputs


class Broken(Loss):
    needs_teacher = False

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, outputs: Outputs) -> Tensor:
        if self.number in (2, 5, 7):
            raise RuntimeError(f"number {self.number} fails")
        return outputs.student_logits.float().pow(2).mean(-1)
"""
OPTION = """broken:
  _target_: kdx.losses.objective.Term
  weight: 0.01
  loss: {_target_: broken_loss.Broken, number: 0}
"""
SHORT = [
    "logger=none",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "teacher.recipe.trainer.max_epochs=2",
    "preflight=off",
    "max_attempts=2",
]


def command(root: Path, name: str, jobs: int) -> list[str]:
    """Return the command of the sweep, with options of its own in `root`/mine."""
    (root / "mine" / "losses").mkdir(parents=True, exist_ok=True)
    (root / "mine" / "losses" / "broken.yaml").write_text(OPTION, encoding="utf-8")
    (root / "mine" / "broken_loss.py").write_text(BROKEN, encoding="utf-8")
    grid = ["losses=[kl,broken]", f"losses.broken.loss.number=range({jobs})", "baselines=[scratch]", f"sweep={name}"]
    return ["-m", f"--config-dir={root}/mine", *grid, *SHORT, f"outputs={root}/outputs"]


def finished(sweep: Path) -> int:
    """Return how many jobs are finished."""
    return count(statuses(sweep)).get("finished", 0) if (sweep / "sweep.json").is_file() else 0


def ended_once(sweep: Path) -> Counter[int]:
    """Return how many jobs have how many attempts that ended without an error."""
    return Counter(sum(one.ended is not None and not one.error for one in job.attempts(path)) for path in _folders(sweep))


def _folders(sweep: Path) -> list[Path]:
    return [path.parent for path in sorted(sweep.glob("*/metrics.json"))]


def killed_twice(root: Path, given: argparse.Namespace) -> bool:
    """Kill the sweep at a third and at two thirds, repeat it, and tell whether each job that can is done once."""
    jobs = given.jobs
    sweep, words = root / "outputs" / "sweeps" / "killed", command(root, "killed", jobs)
    for share in (1 / 3, 2 / 3):
        process = start(words, root / "killed.log")
        while finished(sweep) < share * jobs and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.7)  # somewhere in the next job
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"killed with {count(statuses(sweep))}", flush=True)
    began, modified = time.monotonic(), {path: (path / "metrics.json").stat().st_mtime_ns for path in _folders(sweep)}
    status = start(words, root / "killed.log").wait()
    kept = all((path / "metrics.json").stat().st_mtime_ns == before for path, before in modified.items())
    print(f"repeated in {time.monotonic() - began:.0f} s: exit status {status}, {count(statuses(sweep))}")
    for one in statuses(sweep):
        if one.state == "failed":
            print(f"  {one.folder.name}: {one.error}")
    table, page = (sweep / "comparison.md").is_file(), (sweep / "report.html").is_file()
    attempts = ended_once(sweep)
    print(f"finished jobs untouched: {kept}; attempts that ended, by jobs: {dict(attempts)}; table {table}, page {page}")
    states = count(statuses(sweep))
    whole = states == {"finished": jobs - 3 + 1, "failed": 3} and set(attempts) == {1}  # and one baseline
    return status == 1 and kept and table and page and whole


def shared(root: Path, given: argparse.Namespace) -> bool:
    """Give the command twice at the same time, and tell whether no job was done twice and both have worked."""
    sweep, words = root / "outputs" / "sweeps" / "shared", command(root, "shared", min(given.jobs, 12))
    processes = [start(words, root / f"shared-{number}.log") for number in range(2)]
    statuses_of = [process.wait() for process in processes]
    workers = Counter(one.pid for path in _folders(sweep) for one in job.attempts(path))
    attempts = ended_once(sweep)
    print(f"two commands at once: exit status {statuses_of}, {count(statuses(sweep))}; jobs by process: {dict(workers)}")
    print(f"attempts that ended, by jobs: {dict(attempts)}")
    return set(attempts) == {1} and len(workers) == 2 and json.loads((sweep / "sweep.json").read_text())["jobs"] != {}


def main() -> None:
    """Check both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    run(parser, killed_twice, shared)


if __name__ == "__main__":
    main()
