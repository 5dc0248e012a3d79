"""How far a whole sweep is, when it ends, and which of its jobs one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdx.run import job
from kdx.run.sweep_folder import JobStatus, Plan, State, status_of, write_plan
from kdx.run.sweep_progress import position, progress, seconds_left


def status(state: State, left: float | None = None, took: float | None = None) -> JobStatus:
    return JobStatus(Path("job"), (), state, (), seconds_left=left, seconds=took)


def test_waiting_jobs_take_the_median_of_the_finished_ones_as_many_at_a_time_as_run_now() -> None:
    finished = [status("finished", took=seconds) for seconds in (50.0, 60.0, 900.0)]  # the first one waited for something
    waiting = [status("pending"), status("stopped"), status("pending"), status("pending")]
    assert seconds_left([*finished, status("running", 20.0), *waiting]) == 20 + 4 * 60
    assert seconds_left([*finished, status("running", 20.0), status("running", 30.0), *waiting]) == 30 + 4 * 60 / 2
    assert seconds_left([*finished, status("running"), *waiting]) == 60 + 4 * 60  # it has only begun
    assert seconds_left([status("running", 20.0), *waiting]) == 20 + 4 * 20
    assert seconds_left([*finished, *waiting]) is None and seconds_left([status("running"), *waiting]) is None


def test_a_sweep_in_words_and_the_place_of_a_job(tmp_path: Path) -> None:
    write_plan(tmp_path, Plan(("kdx-train",), str(tmp_path), {f"{i}-run": () for i in range(4)}, 3))
    (tmp_path / "0-run").mkdir()
    (tmp_path / "0-run" / "metrics.json").write_text('{"metrics": {"seconds": 600}}')
    job.fail(tmp_path / "1-run", ValueError("it went wrong"))
    assert position(tmp_path / "2-run") == (3, 4) and position(tmp_path / "other") is None is position(tmp_path)
    assert str(progress(tmp_path)) == "1 of 4 jobs finished, 1 failed, 2 pending" and progress(tmp_path).is_going_on
    starting = progress(tmp_path, starting="2-run")
    assert str(starting) == "1 of 4 jobs finished, 1 running, 1 failed, 1 pending; about 20 min left"
    assert [one.error for one in starting.failed] == ["it went wrong"]
    (tmp_path / "canceled").touch()
    assert not progress(tmp_path).is_going_on and str(progress(tmp_path)).endswith("; canceled")


def test_a_finished_job_took_as_long_as_its_attempts_without_the_training_of_its_teacher(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"metrics": {"seconds": 60, "teacher_seconds": 30}}')
    job._record(tmp_path, [job.Attempt("h", 1, "2026-11-30T10:00:00+00:00", "2026-11-30T10:02:00+00:00")])
    assert status_of(tmp_path).seconds == pytest.approx(90)
