"""The acceptance on a GPU: its verdicts, how it finds host syncs, and a rehearsal of its code on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))
from checks.gpu_acceptance import FAIL, MISSING, ORDER, PASS, TINY, Checks, NotAvailableError, results
from checks.host_syncs import HostSyncs, during_steps

sys.path.remove(str(SCRIPTS))


class Some:
    """Three checks: one that is right, one that fails by an exception, one that the machine cannot do."""

    def right(self) -> tuple[bool, str]:
        return True, "7 images/s"

    def broken(self) -> tuple[bool, str]:
        raise RuntimeError("first line\nsecond line")

    def missing(self) -> tuple[bool, str]:
        raise NotAvailableError("no decoder")


def test_each_check_has_a_verdict_and_its_number() -> None:
    some: Any = Some()
    found = [(one.verdict, one.told) for one in results(some, ("right", "broken", "missing"))]
    assert found == [(PASS, "7 images/s"), (FAIL, "RuntimeError: first line"), (MISSING, "no decoder")]
    assert all(callable(getattr(Checks, name)) and getattr(Checks, name).__doc__ for name in ORDER)


def test_what_makes_the_host_wait_is_found_and_counters_of_optimizers_are_not() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    with HostSyncs() as syncs:
        weight.sum().backward()
        optimizer.step()
        assert syncs.found == []
        weight.sum().item()
        weight[weight > 0]
    assert [name.split()[0] for name in syncs.found] == ["_local_scalar_dense", "index"]


def test_the_steps_of_a_run_have_no_host_sync(train: Callable[..., Path]) -> None:
    words = (
        "experiment=funmatch_digits",
        "trainer.max_epochs=2",
        "test=false",
        "preflight=off",
        "trainer.log_every_n_steps=1000",
    )
    with during_steps(1, 3, torch.device("cpu")) as syncs:
        train("run", *words)
    assert syncs.found == [] and syncs.operations > 300


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run([sys.executable, SCRIPTS / "gpu_acceptance.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no GPU" in done.stderr


@pytest.mark.minutes
def test_its_code_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "gpu_acceptance.py", "--cpu-rehearsal", "--to", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["name"] for one in found["checks"]] == list(ORDER) and found["rehearsal"] and TINY.steps < 20
