"""Signals: what is asked for happens between two steps, and a job of Slurm is queued again by whoever has to."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

from kdx.experiment.trainer import _OfRank
from kdx.training.interruption import REQUEUE, STOP, Interruption


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    """One that listens as in a job of Slurm; the handlers are as before afterwards."""
    handlers = {number: signal.getsignal(number) for number in (*STOP, *REQUEUE)}
    yield Interruption()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def scontrol(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `scontrol` on PATH that notes what it is told; gives the note."""
    script = folder / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return folder / "told"


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SIGTERMException)])
def test_a_signal_acts_when_it_is_asked_for(interruption: Interruption, number: signal.Signals, error: Any) -> None:
    interruption.listen()
    interruption.act()  # nothing was received
    os.kill(os.getpid(), number)
    with pytest.raises(error):
        interruption.act()


def test_outside_of_slurm_its_signals_are_left_alone(interruption: Interruption) -> None:
    before = [signal.getsignal(number) for number in REQUEUE]
    interruption.listen()
    assert [signal.getsignal(number) for number in REQUEUE] == before


@pytest.mark.parametrize("array", [False, True])
def test_a_job_of_slurm_is_queued_again(
    interruption: Interruption, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: bool
) -> None:
    told = scontrol(tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    interruption.listen()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert not told.exists()  # not before the checkpoint is written
    with pytest.raises(SIGTERMException):
        interruption.act()
    assert told.read_text() == ("requeue 11_3\n" if array else "requeue 12\n")


def test_of_several_runs_none_queues_the_job_again_but_their_end(
    interruption: Interruption, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = scontrol(tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    before = signal.getsignal(signal.SIGUSR1)

    def runs() -> None:
        with interruption.listening():
            interruption.listen()  # as each run does
            os.kill(os.getpid(), signal.SIGUSR1)
            for _ in range(2):
                with pytest.raises(SIGTERMException):
                    interruption.act()
            assert not told.exists()

    with pytest.raises(SIGTERMException):
        runs()
    assert told.read_text() == "requeue 12\n" and signal.getsignal(signal.SIGUSR1) == before


def test_submitit_queues_its_jobs_itself(interruption: Interruption, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, called = scontrol(tmp_path, monkeypatch), []
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    interruption.listen()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert not called
    with pytest.raises(SIGTERMException):  # of a rank that does not queue; the first one exits in its handler
        interruption.act()
    assert called == [signal.SIGUSR2] and not told.exists()


@pytest.mark.parametrize(("code", "how"), [(-9, "was ended by SIGKILL"), (2, "ended with exit status 2")])
def test_a_rank_that_has_ended_is_named(code: int, how: str) -> None:
    text = f"[rank: 1] Child process with PID 77 terminated with code {code}. Forcefully terminating all other processes"
    record = logging.LogRecord("lightning", logging.INFO, "", 0, text, (), None)
    assert (
        _OfRank().filter(record) and record.getMessage() == f"Rank 1 (process 77) {how}, so all ranks end: see what it printed"
    )
