"""`ckpt_path`: what is no checkpoint of this run is refused with the remedy, before anything is trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdx.config.errors import ConfigError
from kdx.experiment.resume import check_checkpoint
from kdx.training.checkpoint_files import WholeFiles

Command = Callable[..., tuple[int, str, str]]
SHORT = ("logger=none", "trainer=cpu", "experiment=supervised_digits", "trainer.max_epochs=1")


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, ("executed",)


def _write(kind: str, path: Path) -> None:
    state = {"fc.weight": torch.zeros(10, 64)}
    loops = {"loops": {}, "optimizer_states": []}
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "cut":
        torch.save({"state_dict": state}, path)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        torch.save(
            {"state": state, "wrapped": {"state_dict": state}, "other": {"state_dict": state, **loops}, "code": _Payload()}[
                kind
            ],
            path,
        )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("safetensors", "holds weights, no state of the training: to resume, use the checkpoints/last.ckpt of a run; to start"),
        ("state", "holds weights"),
        ("wrapped", "holds weights"),
        ("other", "is a checkpoint of another program"),
        ("code", "holds Python objects, which kdx does not load"),
        ("text", "is not a checkpoint"),
        ("cut", "is not a checkpoint"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.ckpt")
    _write(kind, path)
    with pytest.raises(ConfigError) as error:
        check_checkpoint(path)
    assert words in str(error.value) and f"ckpt_path=null student.init={path}" in str(error.value)
    assert "weights_only" not in str(error.value) and not Path("executed").exists()


@pytest.fixture
def base(command: Command, tmp_path: Path) -> Path:
    """A finished run of one epoch."""
    folder = tmp_path / "base"
    code, _, err = command("train", *SHORT, f"hydra.run.dir={folder}")
    assert code == 0 and "GPU available" not in err, err
    return folder


def test_a_checkpoint_is_compared_with_the_run(command: Command, base: Path, tmp_path: Path) -> None:
    checkpoint = f"ckpt_path={base}/checkpoints/last.ckpt"
    code, _, err = command("train", *SHORT, checkpoint, "network@student=cifar_resnet14", f"hydra.run.dir={tmp_path}/a")
    assert code == 2 and "other networks or losses; student.architecture=cifar_resnet8 in its run" in err
    assert "only in this run: distiller.student.model.layer1.1.conv1.weight" in err and " more" in err
    assert "Error executing job" not in err and not (tmp_path / "a" / "checkpoints").exists()
    shutil.move(base / "config.yaml", base / "hidden.yaml")
    code, _, err = command("train", *SHORT, checkpoint, "network@student=cifar_resnet8x4", f"hydra.run.dir={tmp_path}/b")
    told = err[err.index("kdx: ckpt_path") :].splitlines()
    assert code == 2 and 2 <= len(told) <= 4
    assert told[1].startswith("  only in this run: distiller.student.model.layer1.0.downsample.0.weight")
    assert told[2].startswith("  other shapes: distiller.student.model.conv1.weight [16, 1, 3, 3] there, [32, 1, 3, 3] here")
    shutil.move(base / "hidden.yaml", base / "config.yaml")

    code, out, err = command("train", *SHORT, checkpoint, "optimizer.lr=0.5", f"hydra.run.dir={tmp_path}/c")
    assert code == 0 and "optimizer.lr=0.005 in the run of the checkpoint" in err
    assert "nothing is left to train" in err and "increase trainer.max_epochs=1" in err
    assert "images/s" in out  # of the whole run, with the steps before the checkpoint
    assert json.loads((tmp_path / "c" / "metrics.json").read_text())["metrics"]["images_per_second"] > 0

    code, out, err = command("train", *SHORT, checkpoint, "trainer.max_epochs=2", f"hydra.run.dir={tmp_path}/d")
    assert code == 0 and "ckpt_path" not in err and "images/s" in out


def test_losses_with_a_state_go_on_as_if_they_had_not_been_cut_off(train: Callable[..., Path], tmp_path: Path) -> None:
    stateful = ("losses=[kl,crd,srrl,vid]", "data=digits300", "test=false", "preflight=off", "trainer.max_epochs=2")
    whole = train("whole", *stateful, "callbacks.last.seconds=0")
    first = torch.load(whole / "checkpoints" / "previous.ckpt", weights_only=True)
    assert 0 < first["global_step"] < torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert any(not isinstance(value, torch.Tensor) for value in first["state_dict"].values())  # the bank of CRD
    again = train("again", *stateful, f"ckpt_path={whole}/checkpoints/previous.ckpt")
    one, other = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (whole, again)
    )
    tensors = [name for name, value in one.items() if isinstance(value, torch.Tensor)]
    assert tensors and all(torch.equal(one[name], other[name]) for name in tensors)


def test_a_damaged_last_checkpoint_is_replaced_by_the_one_before(command: Command, tmp_path: Path) -> None:
    every = ["trainer.max_epochs=3", "callbacks.last.seconds=0"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    for folder in (whole, again):
        code, _, err = command("train", *SHORT, *every, f"hydra.run.dir={folder}")
        assert code == 0, err
    last, previous = again / "checkpoints" / "last.ckpt", again / "checkpoints" / "previous.ckpt"
    assert not list(last.parent.glob("*.part"))
    steps = [torch.load(path, weights_only=True)["global_step"] for path in (previous, last)]
    assert 0 < steps[0] < steps[1]
    for damage in (last.read_bytes()[:-50], b""):
        last.write_bytes(damage)
        code, _, err = command("train", *SHORT, *every, f"ckpt_path={last}", f"hydra.run.dir={again}")
        assert code == 0, err
        assert f"ckpt_path={last} is not a checkpoint, or is damaged; going on from an earlier state" in err
        one, other = (load_file(folder / "student.safetensors") for folder in (whole, again))
        assert all(torch.equal(one[name], other[name]) for name in one)
    last.write_bytes(b"")
    previous.unlink()
    code, _, err = command("train", *SHORT, *every, f"ckpt_path={last}", f"hydra.run.dir={again}")
    assert code == 2 and "is not a checkpoint, or is damaged" in err


@pytest.mark.parametrize("fails", ["save", "fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    files, last = WholeFiles(), tmp_path / "checkpoints" / "last.ckpt"
    for number in (1, 2):
        files.save_checkpoint({"number": number}, last)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"save": (torch, "save"), "fsync": (os, "fsync"), "replace": (os, "replace")}[fails], full)
    with pytest.raises(OSError, match="No space"):
        files.save_checkpoint({"number": 3}, last)
    monkeypatch.undo()
    numbers = {path.name: torch.load(path, weights_only=True)["number"] for path in last.parent.glob("*.ckpt")}
    assert numbers == {"last.ckpt": 2, "previous.ckpt": 1}


def test_without_links_the_last_checkpoint_is_kept_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    for number in (1, 2):
        WholeFiles().save_checkpoint({"number": number}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
