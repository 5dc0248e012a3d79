"""The sweeps whose jobs are not all finished: how far each is, when it will end, and which jobs failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdx.compare.runs import RunRecord
from kdx.run.sweep_folder import PLAN, count, read_plan, shown
from kdx.run.sweep_progress import progress

LISTED = 20  # failed jobs that are named


@dataclass(frozen=True)
class SweepState:
    """A sweep that is not finished, as the page shows it: a sentence, a bar, and its failed jobs as (name, error)."""

    text: str
    done: int
    total: int
    failed: Sequence[tuple[str, str]]
    is_going_on: bool


def unfinished_sweeps(runs: Sequence[RunRecord]) -> list[SweepState]:
    """Return the sweeps of these runs that have jobs without a result."""
    finished = {run.path for run in runs if run.state == "finished"}
    states = []
    for folder in dict.fromkeys(run.path.parent for run in runs):
        if not (folder / PLAN).is_file():
            continue
        try:
            if finished.issuperset(folder / name for name in read_plan(folder).jobs):
                continue
            whole = progress(folder)
        except ValueError:  # the plan cannot be read
            continue
        counts = count(whole.jobs)
        done, total = counts.get("finished", 0) + counts.get("pruned", 0), len(whole.jobs)
        failed = [(f"{one.folder.name} ({' '.join(shown(one.overrides))})", one.error) for one in whole.failed]
        more = [(f"{len(failed) - LISTED} more", f"kdx-sweep status {folder}")] if len(failed) > LISTED else []
        if done < total:
            states.append(SweepState(f"Sweep {folder.name}: {whole}.", done, total, failed[:LISTED] + more, whole.is_going_on))
    return states
