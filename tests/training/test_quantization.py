"""callbacks=int8: val measures the rounded student, training learns with it, and what is stored is as without."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.evaluation.exported import read_exported
from kdx.experiment import build
from kdx.export import folder, rounding, student
from kdx.export.finished import read
from kdx.export.request import requested
from kdx.networks.int8 import Rounding, measured_ranges, put

SHORT = ("experiment=cqkd_digits", "trainer.max_epochs=3", "test=false", "optimizer.lr=0.01")  # of 2 steps an epoch
ROUNDED = (*SHORT, "callbacks=int8", "callbacks.int8.freeze_batchnorm=1")


def val(run: Path) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row["val/student/nll"] for row in csv.DictReader(file) if row.get("val/student/nll")]


def states(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_val_is_rounded_and_training_from_the_start_that_is_given(train: Callable[..., Path]) -> None:
    plain = train("plain", *SHORT)
    never, late = train("never", *ROUNDED, "callbacks.int8.start=1"), train("late", *ROUNDED, "callbacks.int8.start=0.5")
    assert equal(states(never), states(plain))  # val changes no weight
    assert len(val(plain)) == 3 and not set(val(never)) & set(val(plain))
    assert val(late)[0] == val(never)[0] and val(late)[2] != val(never)[2]
    assert states(late).keys() == states(plain).keys() and not equal(states(late), states(plain))
    final = json.loads((never / "metrics.json").read_text())
    assert "Selected as int8" in final["caveats"]["int8"] and "caveats" in final
    assert {f"{final['last']['val/student/nll']:.6f}", f"{final['metrics']['val/student/nll']:.6f}"} <= {
        f"{float(value):.6f}" for value in val(plain)
    }  # in float32, as the files are


def test_batchnorm_keeps_its_statistics_late_in_training(train: Callable[..., Path]) -> None:
    run = train("run", *SHORT, "callbacks=int8", "callbacks.int8.freeze_batchnorm=0.5")
    counts = {int(value) for name, value in states(run).items() if name.endswith("num_batches_tracked")}
    assert counts == {3}  # of 6 steps


def test_an_average_of_the_weights_is_what_val_rounds(train: Callable[..., Path]) -> None:
    both = (*SHORT, "callbacks=ema")
    target = "{_target_: kdx.training.callbacks.quantization.Quantization, start: 1, freeze_batchnorm: 1}"
    rounds, plain = train("rounds", *both, f"+callbacks.int8={target}"), train("plain", *both)
    assert equal(states(rounds), states(plain))
    differences = [abs(float(a) / float(b) - 1) for a, b in zip(val(rounds), val(plain), strict=True)]
    assert 0 < max(differences) < 0.1  # the same average, and ranges of it


def test_a_compiled_student_is_refused(config: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match=r"callbacks.int8 rounds inside the student: use compile=teacher"):
        build.parts(config("experiment=qad_digits", "compile=both"))


@pytest.mark.long
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(
    train: Callable[..., Path],
    command: Callable[..., tuple[int, str, str]],
    interrupted: Callable[..., AbstractContextManager[None]],
    teachers: Path,
    tiny: tuple[str, ...],
    tmp_path: Path,
) -> None:
    options = (*ROUNDED, "callbacks.int8.freeze_batchnorm=0.8", "teacher.recipe.trainer.max_epochs=2")
    whole = train("whole", *options)
    with interrupted(3, signal.SIGTERM):
        code, _, _ = command("train", *tiny, f"outputs={teachers}", f"hydra.run.dir={tmp_path}/part", *options)
    assert code == 143
    part = train("part", *options)
    assert equal(states(whole), states(part)) and val(whole)[-1] == val(part)[-1]


@pytest.mark.long
def test_the_exported_file_predicts_what_the_rounded_student_did(train: Callable[..., Path], tmp_path: Path) -> None:
    """On every image of val and test, to a few levels of int8; the float32 student is farther from the file."""
    run = train("run", "experiment=qad_digits", "trainer.max_epochs=20")
    options = {
        "fold_temperature": False,
        "opset": None,
        "batches": [1],
        "quantization_images": 256,
        "push": None,
        "private": True,
    }
    to = folder.export(requested({"run": str(run), "format": "onnx_int8", "to": str(tmp_path / "to"), **options}))
    file, network = read_exported(to / "student_int8.onnx").measured(), student.load(read(str(run)))
    assert equal(load_file(run / "student.safetensors"), network.model.state_dict())
    images = rounding.run_images(read(str(run)), 256)
    ranges = measured_ranges(network, images.train_batches(file))
    for of_split in images.measured.values():
        batches = images.bench(file).batches(of_split, file.resolution.student)
        seen = torch.cat([batch.student_images for batch in batches])
        with torch.no_grad():
            plain = network(seen)
            put(network, Rounding(ranges))
            simulated, written = network(seen), file.student(seen)
            put(network, None)
        assert (simulated.argmax(-1) == written.argmax(-1)).float().mean() >= 0.99
        far, farther = ((one - written).square().mean().sqrt() for one in (simulated, plain))
        assert far < 0.5 * farther
