"""kdx-predict says of image files what the evaluation of the run says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has no types
import pytest
from PIL import Image

from kdx.networks.preprocessing import CROPS, crop_of, preprocessing

Command = Callable[..., tuple[int, str, str]]
CLASSES = ("anchor", "bolt", "clamp")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of files of several sizes, colors and formats in their folders."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            height, width = (24, 32) if i % 3 else draw.integers(12, 40, 2)
            pixels = draw.integers(0, 256, (height, width, 3)) // 2 + 60 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name / f"{i:02d}.{('jpg', 'png')[i % 2]}")
    return tmp_path / "images"


@pytest.fixture
def run(command: Command, images: Path, tmp_path: Path) -> Path:
    """A student of these images, trained for two epochs."""
    words = ("experiment=none", "data=imagefolder", f"data.root={images}", "teacher=none", "calibration=none", "losses=[ce]")
    words += ("temperature=none", "student.architecture=cifar_resnet8", "resolution.student=16", "resolution.teacher=16")
    words += ("data.batch_size=8", "trainer=cpu", "trainer.max_epochs=2", "logger=none", "preflight=off")
    code, _, err = command("train", *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, err
    return tmp_path / "run"


def told(command: Command, *words: str) -> list[dict[str, Any]]:
    code, out, err = command("predict", *words, "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_it_equals_the_evaluation_of_the_same_images(command: Command, run: Path, images: Path) -> None:
    code, _, err = command("evaluate", f"run={run}", "split=all", "predictions=true")
    assert code == 0, err
    (file,) = (run / "evaluations").rglob("*.parquet")
    rows = pq.read_table(file).to_pydict()
    found = told(command, f"run={run}", str(images), "--raw", "--top=3")
    by_file = {Path(one["file"]).relative_to(images).as_posix(): one for one in found}
    assert len(by_file) == 36 and sorted(by_file) == list(by_file)  # the order of the data set: class by class
    expected = np.sort(rows["student_confidence"])  # of all splits, one after the other
    np.testing.assert_allclose(np.sort([one["confidence"] for one in found]), expected, rtol=0, atol=1e-6)
    count = [sum(one["class"] == name for one in found) for name in CLASSES]
    assert count == np.bincount(rows["student_predicted"], minlength=3).tolist()
    for one in found:
        p = np.array(one["probabilities"])
        assert one["class"] == one["classes"][0] and sorted(one["classes"]) == sorted(CLASSES) and p.sum() == pytest.approx(1)
        assert one["entropy"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-9)


def test_its_confidence_is_calibrated_and_an_exported_file_says_the_same(command: Command, run: Path, images: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["metrics"]["calibration_temperature/student"] = 2.5  # another one than 1
    (run / "metrics.json").write_text(json.dumps(metrics))
    calibrated, raw = (told(command, f"run={run}", str(images), *option, "--top=3") for option in ([], ["--raw"]))
    for one, other in zip(calibrated, raw, strict=True):
        p = np.array(other["probabilities"]) ** (1 / 2.5)
        np.testing.assert_allclose(one["probabilities"], p / p.sum(), atol=1e-9)
    assert command("export", f"run={run}")[0] == 0
    assert command("export", f"run={run}", "format=[onnx]", "fold_temperature=true", f"to={run / 'folded'}")[0] == 0
    for file in ("export/student.safetensors", "export/student.onnx", "folded/student.onnx"):
        for one, other in zip(told(command, f"file={run / file}", str(images)), calibrated, strict=True):
            assert one["class"] == other["class"] and one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)


def test_a_damaged_image_costs_only_itself(command: Command, run: Path, images: Path) -> None:
    (images / "bolt" / "03.png").write_bytes(b"no image")
    code, out, err = command("predict", f"run={run}", str(images / "bolt"), str(images / "clamp" / "01.png"))
    assert code == 1 and err.count("\n") == 1 and "03.png cannot be decoded (not an image)" in err
    assert out.count(".jpg") + out.count(".png") == 12 and "confidence" in out and "T = " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.jpg"], "give one network: run=FOLDER of a finished run, or file=FILE of an export"),
        (["run=a", "file=b", "a.jpg"], "give one network"),
        (["file=there.onnx"], "give image files, or folders of them"),
        (["file=there.onnx", "a.jpg"], "a.jpg: file not found"),
        (["file=there.onnx", "empty"], "empty contains no image"),
        (["run=nowhere", "a.jpg"], "run=nowhere is not the folder of a run: it has no config.yaml"),
        (["file=nowhere.onnx", "there.png"], "nowhere.onnx: file not found; give student.onnx"),
        (["file=there.onnx", "there.png"], "cannot load there.onnx"),
        (["file=there.onnx", "there.png", "--teacher"], "--teacher needs run=FOLDER"),
        (["file=there.png", "there.png"], "there.png is not an exported network: give student.onnx, student.pte"),
        (["file=there.safetensors", "there.png"], "there.json does not describe a student"),
        (["file=empty", "there.png"], "empty has no config.json with model.safetensors: export with format=[timm]"),
        (["file=x", "there.png", "--top", "0"], "--top 0: expected at least 1"),
    ],
)
def test_a_mistake_has_a_remedy(command: Command, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "there.onnx").write_bytes(b"no graph")
    (tmp_path / "there.safetensors").write_bytes(b"no weights")
    (tmp_path / "empty").mkdir()
    if "." not in words:
        Image.new("L", (4, 4)).save(tmp_path / "there.png")
    code, _, err = command("predict", *words)
    assert code == 2 and message in err and err.count("\n") == 1


def test_the_usage_names_every_option(command: Command) -> None:
    code, out, _ = command("predict", "--help")
    usage, _, options = out.partition("\n\n")
    named, listed = (set(re.findall("--[a-z]+", text)) - {"--help"} for text in (usage, options))
    assert code == 0 and named == listed != set()


@pytest.mark.parametrize("target", CROPS)
def test_the_crop_in_timms_words_is_the_crop(target: str) -> None:
    node = {"_target_": target} | ({"fraction": 0.9} if target.endswith("Center") else {})
    assert crop_of(preprocessing(node, "bilinear", 3, 32)) == node
    assert crop_of({"crop_mode": "border", "crop_pct": 1.0}) is None and crop_of({}) is None
