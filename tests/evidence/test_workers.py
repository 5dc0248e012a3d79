"""Processes do run after run; what goes wrong in one stops no other."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_runs
import pytest

from kdx.evidence.planned_run import PlannedRun
from kdx.evidence.workers import work


@pytest.fixture
def runs(tmp_path: Path) -> list[PlannedRun]:
    """Five seeds of one system."""
    config: Any = SimpleNamespace(temperature=None, trainer={"max_epochs": 1})
    return [PlannedRun("f", "s", seed, (), config, f"key{seed}", tmp_path / f"key{seed}") for seed in range(5)]


def test_two_processes_share_the_runs_with_a_thread_each(runs: list[PlannedRun], tmp_path: Path) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    done = list(work(runs, 2, tmp_path, fake_runs.succeed))
    assert sorted(run.seed for run, _ in done) == [0, 1, 2, 3, 4]
    assert not [error for _, error in done if error]
    assert all(run.finished for run in runs)
    lines = [(tmp_path / f"key{seed}.times").read_text().split() for seed in range(5)]
    processes = {process for process, _ in lines}
    assert 1 <= len(processes) <= 2 and str(os.getpid()) not in processes
    assert {threads for _, threads in lines} == {"1"}
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_an_error_and_a_dead_process_are_told_and_the_rest_goes_on(runs: list[PlannedRun], tmp_path: Path) -> None:
    found = {run.seed: error for run, error in work(runs, 1, tmp_path, fake_runs.some_fail)}
    assert found[1] == "RuntimeError: no memory"
    assert "ended with exit code 9" in found[2]
    assert [found[seed] for seed in (0, 3, 4)] == ["", "", ""]
    assert "Traceback" in (tmp_path / "worker-0.log").read_text()


def test_a_run_without_numbers_failed(runs: list[PlannedRun], tmp_path: Path) -> None:
    assert "without metrics.json" in next(work(runs[:1], 1, tmp_path, fake_runs.leave_nothing))[1]


def test_what_a_cut_off_run_left_is_kept_so_that_it_goes_on(runs: list[PlannedRun], tmp_path: Path) -> None:
    runs[0].folder.mkdir()
    (runs[0].folder / "rest").touch()
    list(work(runs[:1], 1, tmp_path, fake_runs.succeed))
    assert runs[0].finished and (runs[0].folder / "rest").exists()


def test_leaving_early_ends_the_processes(runs: list[PlannedRun], tmp_path: Path) -> None:
    hanging = work([replace(runs[0], seed=7), runs[1]], 2, tmp_path, fake_runs.hang)
    with pytest.raises(KeyboardInterrupt):
        interrupted(hanging, runs)
    began = time.monotonic()
    hanging.close()
    assert time.monotonic() - began < 300  # they would sleep for 600 s


def interrupted(hanging: object, runs: list[PlannedRun]) -> None:
    """Start the work, and be interrupted while waiting for it."""
    import signal
    import threading

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it

    def cut() -> None:
        while not all((run.folder / "began").exists() for run in runs[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=cut, daemon=True).start()
    try:
        next(hanging)
    finally:
        signal.signal(signal.SIGINT, before)
