"""A run's folder knows its state, who works in it, and how earlier attempts ended; also after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdx.run import job


def test_the_state_follows_the_files(tmp_path: Path) -> None:
    assert job.state(tmp_path / "missing") == job.state(tmp_path) == "empty"
    (tmp_path / "run.json").touch()
    assert job.state(tmp_path) == "begun"
    (tmp_path / "metrics.json").touch()
    assert job.state(tmp_path) == "finished"


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with job.held(tmp_path), job.attempt(tmp_path):
        assert job.is_held(tmp_path)
        with pytest.raises(job.HeldError, match=r"in use by process \d+ on .+, since 2"), job.held(tmp_path):
            pass
    assert not job.is_held(tmp_path) and not job.is_held(tmp_path / "other")
    (attempt,) = job.attempts(tmp_path)
    assert attempt.ended is not None and attempt.error is None


def test_an_attempt_that_fails_is_told_apart_from_one_that_is_interrupted(tmp_path: Path) -> None:
    for error in (ValueError("a key\nand more"), OSError("disk of password=abc"), KeyboardInterrupt()):
        with pytest.raises(type(error)), job.attempt(tmp_path):
            raise error
    assert [attempt.error for attempt in job.failures(tmp_path)] == ["a key", "OSError: disk of password=******"]
    job.fail(tmp_path, ValueError("before it held the folder"))
    assert len(job.failures(tmp_path)) == 3 and len(job.attempts(tmp_path)) == 4
    job.forget_failures(tmp_path)
    assert len(job.attempts(tmp_path)) == 1 and not job.failures(tmp_path)


def test_a_killed_process_holds_nothing_and_has_not_failed(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from kdx.run import job
with job.held(Path({str(tmp_path)!r})), job.attempt(Path({str(tmp_path)!r})):
    Path({str(tmp_path)!r}, "begun").touch()
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.01)
    assert job.is_held(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not job.is_held(tmp_path)
    (attempt,) = job.attempts(tmp_path)
    assert (attempt.pid, attempt.ended, attempt.error) == (process.pid, None, None)
    with job.held(tmp_path), job.attempt(tmp_path):
        assert len(job.attempts(tmp_path)) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"attempts": [{"other": 1}]}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / job.FILE).write_text(content)
    assert job.attempts(tmp_path) == []
