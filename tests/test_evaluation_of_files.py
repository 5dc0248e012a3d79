"""kdx-evaluate file=: exported files give the numbers of their run, and what kdx-predict says of the same images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has no types
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from kdx.evaluation.exported import read_exported
from kdx.export import onnx_file

Command = Callable[..., tuple[int, str, str]]
WHAT = ("accuracy", "nll", "ece", "entropy")
CLASSES = ("anchor", "bolt", "clamp")


def measured(command: Command, *words: str, result: Path) -> dict[str, Any]:
    """The JSON that a successful kdx-evaluate writes."""
    code, out, err = command("evaluate", *words)
    assert code == 0, err
    assert str(result) in out
    return json.loads(result.read_text())


def test_files_of_digits_have_the_numbers_of_their_run(train: Callable[..., Path], command: Command, tmp_path: Path) -> None:
    """One training, many questions: a run costs seconds."""
    run = train("run", "data=digits300", "resolution.student=6")
    final = json.loads((run / "metrics.json").read_text())["metrics"]
    assert command("export", f"run={run}", "format=[timm,safetensors,onnx,onnx_int8]")[0] == 0
    place = run / "evaluations"
    for file in ("export/student.onnx", "export/student.safetensors", "export"):
        found = measured(command, f"file={run / file}", "name=a", result=place / "a.json")
        assert found["of"]["file"] == str(run / file) and found["resolution"] == {"teacher": 8, "student": 6}
        for network in ("student", "student_scaled", "teacher"):
            for what in WHAT:
                key = f"test/{network}/{what}"
                assert found["clean"][key] == pytest.approx(final[key], rel=0, abs=1e-6), (file, key)
        assert found["clean"]["test/agreement"] == final["test/agreement"]

    # int8: the numbers of the export, under its own temperature; on val, alone.
    report = json.loads((run / "export" / "export.json").read_text())["formats"]["onnx_int8"]["rounding"]
    int8 = f"file={run}/export/student_int8.onnx"
    found = measured(command, int8, "split=val", "alone=true", "name=b", result=place / "b.json")
    for network in ("student", "student_scaled"):
        for what in WHAT:
            key = f"val/{network}/{what}"
            assert found["clean"][key] == pytest.approx(report["int8"]["metrics"][key], abs=1e-7)
    assert "val/teacher/nll" not in found["clean"]

    # Shifts: int8 is measured as others are; a graph takes one resolution, weights take others.
    code, _, err = command(
        "evaluate", int8, "shift=[noise,resolution]", "severities=[1]", "shift.resolution.sides=[5]", "name=c"
    )
    assert code == 0 and "shift resolution is left out: the file takes only images of 6 px" in err
    rows = json.loads((place / "c.json").read_text())["shift"]
    assert [row["corruption"] for row in rows] == ["noise"] and "test/student_scaled/ece" in rows[0]["metrics"]
    weights = [f"file={run}/export", "resolution=[6,4]", "name=d"]
    assert "test/student_at_4/ece" in measured(command, *weights, result=place / "d.json")["clean"]
    code, _, err = command("evaluate", int8, "resolution=4")
    assert code == 2 and "takes only images of 6 px: remove resolution=, or give file=student.safetensors" in err

    # Elsewhere it needs data and a folder, and says so.
    (tmp_path / "away").mkdir()
    shutil.copy(run / "export" / "student.onnx", tmp_path / "away")
    away = [f"file={tmp_path}/away/student.onnx", f"to={tmp_path}/to"]
    found = measured(command, *away, "data=digits", result=tmp_path / "to" / "student.onnx-digits-test.json")
    assert found["clean"]["test/student/nll"] == pytest.approx(final["test/student/nll"], abs=1e-6)
    code, _, err = command("evaluate", *away)
    assert code == 2 and "requires a data set: give data=GROUP" in err
    code, _, err = command("evaluate", f"file={run}")
    assert code == 2 and f"{run} is the folder of a run: give run={run}" in err
    code, _, err = command("evaluate", f"file={tmp_path}/to")  # no data could help
    assert code == 2 and "has no config.json with model.safetensors" in err


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of files of two sizes in their folders."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = draw.integers(0, 256, (24 if i % 3 else 19, 32, 3)) // 2 + 60 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name / f"{i:02d}.png")
    return tmp_path / "images"


def test_predictions_are_those_of_kdx_predict(command: Command, images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("experiment=none", "data=imagefolder", f"data.root={images}", "teacher=none", "calibration=none", "losses=[ce]")
    words += ("temperature=none", "student.architecture=cifar_resnet8", "resolution.student=16", "resolution.teacher=16")
    words += ("data.batch_size=8", "trainer=cpu", "trainer.max_epochs=2", "logger=none", "preflight=off")
    words += ("interpolation.student=bicubic_aliased", f"hydra.run.dir={run}")  # which timm's words cannot tell from bicubic
    code, _, err = command("train", *words)
    assert code == 0, err
    assert command("export", f"run={run}", "format=[timm,safetensors,onnx,onnx_int8]", "quantization_images=20")[0] == 0
    own = measured(command, f"run={run}", "split=all", "predictions=true", "name=own", result=run / "evaluations" / "own.json")
    for file in ("student.onnx", "student_int8.onnx", "student.safetensors", ""):
        path = run / "export" / file
        found = measured(
            command, f"file={path}", "split=all", "predictions=true", "name=a", result=run / "evaluations" / "a.json"
        )
        if "int8" not in file:  # the filter that timm cannot name is the run's
            for what in WHAT:
                expected = own["clean"][f"all/student/{what}"]
                assert found["clean"][f"all/student/{what}"] == pytest.approx(expected, rel=0, abs=1e-6), (file, what)
        rows = pq.read_table(run / "evaluations" / "a.parquet").to_pydict()
        temperature = read_exported(path).temperature
        assert temperature is not None
        scaled = torch.tensor(rows["student_logits"], dtype=torch.float64) / temperature
        confidence = np.sort(scaled.softmax(-1).max(-1).values.numpy())
        code, out, err = command("predict", f"file={path}", str(images), "--json")
        assert code == 0, err
        answers = [json.loads(line) for line in out.splitlines()]
        assert len(answers) == 36
        np.testing.assert_allclose(np.sort([one["confidence"] for one in answers]), confidence, rtol=0, atol=1e-6)
        count = [sum(one["class"] == name for one in answers) for name in CLASSES]
        assert count == np.bincount(rows["student_predicted"], minlength=3).tolist()


def write_onnx(file: Path, classes: int = 10, **notes: Any) -> None:
    """An ONNX file of 1 channel and 4 px with the metadata that kdx-export writes, or without."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()
    onnx_file.write(network, (1, 4, 4), file, notes={f"kdx.{key}": json.dumps(value) for key, value in notes.items()})


CARD = {
    "input_size": [1, 4, 4],
    "crop_pct": 1.0,
    "crop_mode": "squash",
    "interpolation": "bilinear",
    "mean": [0.5],
    "std": [0.5],
}


def test_a_file_that_cannot_be_measured_is_told_with_the_remedy(command: Command, tmp_path: Path) -> None:
    names = ("plain", "seven", "corner", "right", "unknown")
    plain, seven, corner, right, unknown = (tmp_path / f"{name}.onnx" for name in names)
    write_onnx(plain)
    write_onnx(seven, 7, pretrained_cfg=CARD)
    write_onnx(corner, 10, pretrained_cfg={key: value for key, value in CARD.items() if key != "crop_mode"})
    write_onnx(right, 10, pretrained_cfg=CARD)
    model = onnx.load(str(right))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Telepathy", "none.of.ours"
    onnx.save(model, str(unknown))
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "weights.pth").write_bytes(b"")
    timm.models.save_for_hf(
        timm.create_model("test_resnet", num_classes=10, in_chans=1), tmp_path / "foreign", safe_serialization=True
    )
    config = json.loads((tmp_path / "foreign" / "config.json").read_text())
    del config["model_args"]  # as in folders of older versions of timm
    (tmp_path / "foreign" / "config.json").write_text(json.dumps(config))
    (tmp_path / "folder").mkdir()
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (6, 6), "red").save(tmp_path / "photos" / name / "1.png")
    to = ["data=digits", "to=there"]
    for words, message in (
        ([f"file={plain}", *to], "has no metadata of kdx: export it with kdx-export run=FOLDER format=[onnx]"),
        ([f"file={seven}", *to], "The data set has 10 classes and the network 7"),
        ([f"file={seven}", *to], "give class_map=FILE.json"),
        ([f"file={corner}", *to], "does not say how images are cropped: keep it in the folder of its run"),
        ([f"file={unknown}", *to], "cannot load"),
        ([f"file={unknown}", *to], "export it again with kdx-export run=FOLDER format=[onnx]"),
        (["file=text.onnx", *to], "export it again with kdx-export run=FOLDER format=[onnx]"),
        (
            ["file=weights.pth", *to],
            "weights.pth is not an exported network: give student.onnx, student.pte, student.safetensors",
        ),
        (["file=folder", *to], "folder has no config.json with model.safetensors: export with format=[timm]"),
        (["file=foreign", *to], "or evaluate it with timm=local-dir:foreign"),
        (["file=nowhere.onnx", *to], "file=nowhere.onnx does not exist; give student.onnx"),
        ([f"file={right}", "data=digits"], "is not part of a run, so the results need a folder: give to=FOLDER"),
        ([f"file={right}", "timm=resnet18", *to], "give one of run=FOLDER"),
        ([f"file={right}", "mean=[0.5]", *to], "mean= has no effect on file="),
        (
            [f"file={right}", "data=imagefolder", "data.root=photos", "split=all", "to=there"],
            "expects images with 1 channels, but the data set has 3",
        ),
    ):
        code, _, err = command("evaluate", *words)
        assert code == 2 and message in err.strip().splitlines()[-1], (words, err)
    assert not (tmp_path / "there").exists() or not list((tmp_path / "there").iterdir())
    code, _, err = command("evaluate", f"file={right}", *to)
    assert code == 0, err


def test_missing_onnxruntime_is_told(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = util.find_spec
    hidden = lambda name, package=None: None if name == "onnxruntime" else original(name, package)  # noqa: E731 - short
    monkeypatch.setattr(util, "find_spec", hidden)
    (tmp_path / "a.onnx").write_bytes(b"")
    code, _, err = command("evaluate", "file=a.onnx", "data=digits", "to=there")
    assert code == 2 and "file=a.onnx requires onnxruntime: pip install kdx[export]" in err
