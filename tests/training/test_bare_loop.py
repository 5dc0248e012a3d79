"""The bare loop beside a run: it measures both, and changes nothing of the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

BARE = "+callbacks.bare={{_target_: kdx.training.callbacks.bare_loop.BareLoop, file: '{file}'}}"


@pytest.mark.parametrize("experiment", ["cqkd_digits", "supervised_digits", "funmatch_digits"])
def test_it_measures_both_and_leaves_the_run_as_it_is(train: Callable[..., Path], tmp_path: Path, experiment: str) -> None:
    file = tmp_path / "steps.json"
    words = (f"experiment={experiment}", "data=digits", "trainer.max_epochs=1", "test=false", "preflight=off")
    beside, alone = train("beside", *words, BARE.format(file=file)), train("alone", *words)
    found = json.loads(file.read_text())
    assert found["steps"] > 1 and found["kdx_ms"] > 0 and found["bare_ms"] > 0
    assert found["bare_with_data_ms"] > found["bare_ms"]
    for kind in ("", "_with_data"):
        low, high = found[f"quartiles{kind}"]
        assert low <= found[f"ratio{kind}"] <= high
    assert sum(found["shares"].values()) == pytest.approx(1) and min(found["shares"].values()) > 0
    one, other = (load_file(folder / "student.safetensors") for folder in (beside, alone))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_too_few_steps_are_said(train: Callable[..., Path], tmp_path: Path) -> None:
    few = ("experiment=supervised_digits", "trainer.max_epochs=1", "trainer.limit_train_batches=3", "test=false")
    with pytest.raises(AssertionError, match="too few to be measured"):
        train("few", *few, BARE.format(file=tmp_path / "steps.json"))
