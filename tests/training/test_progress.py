"""Progress: a bar on a terminal, unless several runs train at the same time."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdx.training.callbacks.progress import RunProgress
from kdx.training.lockstep import Lockstep
from kdx.training.sharing import Sharing, Successive

RUNS = {"alone": (Sharing(), True), "one after the other": (Successive(), True), "lane": (Lockstep("a").lanes[0], False)}


@pytest.mark.parametrize(("sharing", "expected"), RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("terminal", [True, False])
def test_bars_of_several_runs_would_overwrite_each_other(
    sharing: Sharing, expected: bool, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    about = {"global_step": 0, "estimated_stepping_batches": 4, "max_epochs": 1, "current_epoch": 0, "is_global_zero": True}
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(sharing=sharing), default_root_dir=str(tmp_path), **about)
    progress = RunProgress()
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]  # it does not look at the module
    assert (progress.bar is not None) == (expected and terminal)
    if progress.bar is not None:
        progress.bar.stop()
