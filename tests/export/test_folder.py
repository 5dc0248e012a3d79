"""A whole export: its files load as the card says, carry the student's numbers, and a failure leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from kdx.config.cards import read_card
from kdx.evaluation.measured_networks import student_of_card
from kdx.export import folder, formats, student
from kdx.export.finished import read
from kdx.export.parity import ExportError
from kdx.export.request import requested
from kdx.networks.metadata import of_file
from kdx.networks.preprocessing import preprocessing
from kdx.types import View
from kdx.views import crops
from kdx.views.render import Resizing, render

Values = Callable[..., dict[str, Any]]
QUICK = ["timm", "safetensors"]
EVERYTHING = {
    "README.md",
    "export.json",
    "config.json",
    "model.safetensors",
    "student.json",
    "student.safetensors",
    "student.onnx",
}


def names(path: Path) -> set[str]:
    return {item.name for item in path.iterdir()}


@pytest.fixture(scope="module")
def exported(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and its export in all formats with the temperature folded in."""
    run = make_run(tmp_path_factory.mktemp("whole") / "run", "cifar_resnet8", 10, 1, 4)
    values = {
        "run": str(run),
        "format": [*QUICK, "onnx"],
        "to": None,
        "fold_temperature": True,
        "opset": None,
        "batches": [1, 2, 7],
        "quantization_images": 256,
        "push": None,
        "private": True,
    }
    return run, folder.export(requested(values))


def test_the_folder_is_whole_and_its_ledger_true(exported: tuple[Path, Path]) -> None:
    run, to = exported
    assert to == run / "export"
    assert names(to) == EVERYTHING
    assert not list(run.glob(".export*"))
    ledger = json.loads((to / "export.json").read_text())
    assert set(ledger["files"]) == EVERYTHING - {"export.json"}
    for name, said in ledger["files"].items():
        assert said == {"bytes": (to / name).stat().st_size, "sha256": hashlib.sha256((to / name).read_bytes()).hexdigest()}
    assert ledger["calibration_temperature_folded"] == 2.5
    for name, report in ledger["formats"].items():
        parities = report["levels"].values() if name == "onnx" else [report]
        for parity in parities:
            assert [one["batch"] for one in parity["batches"]] == [1, 2, 7]
            assert all(0 <= one["max_difference"] <= one["tolerance"] < 0.01 for one in parity["batches"])
            assert max(one["max_logit"] for one in parity["batches"]) > 0.1  # there was something to compare
    latency = ledger["formats"]["onnx"]["latency"]
    assert latency["onnxruntime_ms_1"] > 0 and latency["pytorch_ms_1"] > 0
    assert "median" in latency["protocol"]


def test_each_way_to_load_gives_the_scaled_students_logits(
    exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, to = exported
    monkeypatch.chdir(to)
    snippets = re.findall(r"```python\n(.*?)```", (to / "README.md").read_text(), re.DOTALL)
    assert [next(word for word in ("local-dir:", "checkpoint_path", "onnxruntime") if word in text) for text in snippets] == [
        "local-dir:",
        "checkpoint_path",
        "onnxruntime",
    ]
    reference = student.load(read(str(run)))
    for snippet in snippets:
        scope: dict[str, Any] = {}
        exec(snippet, scope)
        images, logits = (torch.as_tensor(scope[name]).detach() for name in ("images", "logits"))
        assert images.shape == (2, 1, 4, 4)
        torch.testing.assert_close(logits, reference(images).detach() / 2.5, rtol=1e-4, atol=1e-5)


def test_the_card_tells_what_one_must_know(exported: tuple[Path, Path]) -> None:
    text = (exported[1] / "README.md").read_text()
    for said in (
        "# demo: cifar_resnet8 at 4 px",
        "| test, n = 1 | accuracy | nll |",
        "| student | 0.7500 | 0.5000 |",
        "| student_scaled | 0.7500 | 0.4000 |",
        "| teacher | 0.9600 |  |",
        "T = 2.5000",
        "on val",
        "It **is** included in these files",
        "epoch 2 of 3, the best val/student/accuracy",
        "f1n9er",
        "seed: 7",
        "c0ffee",
        "kdx.data.digits.Digits",
        "5ha5ha5ha",
        "## Limitations",
    ):
        assert said in text, said
    assert "/where/it/was" not in text and "/secret" not in text  # the machine it came from is nobody's business


def test_timm_knows_how_to_feed_it(exported: tuple[Path, Path]) -> None:
    model = timm.create_model(f"local-dir:{exported[1]}", pretrained=True)
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (1, 4, 4)
    assert (data["mean"], data["std"]) == (pytest.approx([0.4]), pytest.approx([0.3]))
    assert (data["crop_pct"], data["crop_mode"], data["interpolation"]) == (0.875, "center", "box")
    other = timm.create_model(f"local-dir:{exported[1]}", pretrained=True, num_classes=3)  # to go on from, for other classes
    assert other(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    assert torch.equal(other.conv1.weight, model.conv1.weight)


CUT = {"_target_": "kdx.views.crops.Center", "fraction": 0.875}
WHOLE = {"_target_": "kdx.views.crops.Resize"}


@pytest.mark.parametrize(("crop", "made"), [(CUT, crops.Center(0.875)), (WHOLE, crops.Resize())], ids=["center", "resize"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area"])
def test_timms_transforms_give_the_pixels_that_the_student_saw(
    crop: dict[str, Any], made: crops.Crop, interpolation: Any
) -> None:
    """By PIL, from the words in student.json; the edge is left out, where PIL's filter reaches beyond kdx's crop."""
    generator = np.random.default_rng(0)
    image = np.repeat(np.repeat(generator.integers(64, 192, (12, 18, 3), dtype=np.uint8), 8, 0), 8, 1)  # 96 x 144 px
    words = preprocessing(crop, interpolation, 3, 28)
    network = student.Network("test_resnet", 5, 3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    card = {**network.card["pretrained_cfg"], **words}
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=card))
    theirs = transform(Image.fromarray(image))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    box = made.boxes(np.zeros((1, made.draws)), np.array([[96, 144]]))
    view = View(box, np.zeros(1, dtype=np.bool_))
    ours = ((render(pixels, view, 28, None, interpolation) - network.mean) / network.std)[0]
    assert theirs.shape == ours.shape
    difference = (theirs - ours)[:, 3:-3, 3:-3].abs()
    levels = 12 if interpolation == "area" else 2  # PIL's box counts whole pixels only
    assert difference.max() < levels / 255 / 0.4


def test_what_leaves_the_run_is_complete(make_run: Callable[..., Path], values: Values, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "test_resnet", 3, 3, 32)
    names = ["wrench", "01", "Ölkanne"]  # the order of the outputs, not the alphabet's
    card = json.loads((run / "student.json").read_text())
    (run / "student.json").write_text(json.dumps({**card, "label_names": names}))
    to = folder.export(requested(values(run, to=str(tmp_path / "out"))))
    expected = {"input_size": [3, 32, 32], "crop_pct": 0.875, "crop_mode": "center", "interpolation": "box"}
    expected |= {name: pytest.approx([value] * 3) for name, value in (("mean", 0.4), ("std", 0.3))}
    notes = {item.key: item.value for item in onnx.load(str(to / "student.onnx")).metadata_props}
    in_graph = {
        "pretrained_cfg": json.loads(notes["kdx.pretrained_cfg"]),
        "label_names": json.loads(notes["kdx.label_names"]),
        "interpolation": json.loads(notes["kdx.interpolation"]),
        "calibration_temperature": json.loads(notes["kdx.calibration_temperature"]),
        "calibration_temperature_folded": json.loads(notes["kdx.calibration_temperature_folded"]),
    }
    files = [json.loads((to / name).read_text()) for name in ("student.json", "config.json")]
    for content in (*files, in_graph):
        assert {key: content["pretrained_cfg"][key] for key in expected} == expected
        assert content["label_names"] == names
        assert content["calibration_temperature"] == 2.5 and content["calibration_temperature_folded"] is None
    text = (to / "README.md").read_text()
    for said in ("central square of 0.875", "32x32 px, box", "mean (0.4, 0.4, 0.4)", "0 wrench, 1 01, 2 Ölkanne"):
        assert said in text, said
    model = timm.create_model(f"local-dir:{to}", pretrained=True)
    assert list(model.pretrained_cfg["label_names"]) == names
    assert of_file(to / "student.safetensors").names == names
    measured = student_of_card(to / "student.safetensors", read_card(to / "student.json"), {})
    assert measured.names == names and measured.resizing == Resizing("area", "area")


def test_a_crop_that_timm_does_not_have_is_named(make_run: Callable[..., Path], values: Values, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "test_resnet", 5, 3, 32)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["eval_crop"] = {"_target_": "mine.Corner"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    to = folder.export(requested(values(run, format="timm", to=str(tmp_path / "out"))))
    assert "crop_pct" not in json.loads((to / "config.json").read_text())["pretrained_cfg"]
    assert "`mine.Corner`, which timm's transforms do not have" in (to / "README.md").read_text()


def test_an_architecture_of_timms_own_loads_without_kdx(make_run: Callable[..., Path], values: Values, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "test_resnet", 5, 3, 32)
    to = folder.export(requested(values(run, format=QUICK, to=str(tmp_path / "deep" / "out"))))
    assert "kdx." not in "".join(re.findall(r"```python\n(.*?)```", (to / "README.md").read_text(), re.DOTALL))
    model = timm.create_model(f"local-dir:{to}", pretrained=True).eval()
    trained = student.load(read(str(run)))
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(model((images - 0.4) / trained.std), trained(images))
    assert "It is **not** included in these files" in (to / "README.md").read_text()


def test_folding_divides_the_logits_and_leaves_the_student_alone() -> None:
    network = student.Network("cifar_resnet8", 10, 1).eval()
    images = torch.rand(3, 1, 4, 4)
    before = network(images)
    torch.testing.assert_close(student.folded(network, 4.0)(images), before / 4)
    assert torch.equal(network(images), before)
    convolutional = student.Network("mobilenetv4_conv_small", 10, 3).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(student.folded(convolutional, 0.5)(images), convolutional(images) * 2)


def test_a_network_without_a_last_layer_cannot_be_folded() -> None:
    network = student.Network("cifar_resnet8", 10, 1)
    network.model.get_classifier = lambda: (nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ExportError, match=r"no single last layer.*fold_temperature=false"):
        student.folded(network, 2.0)


def test_a_second_export_takes_the_place_of_the_first(values: Values, digits_run: Path) -> None:
    to = folder.export(requested(values(digits_run, format=QUICK)))
    assert "model.safetensors" in names(to)
    folder.export(requested(values(digits_run, format="safetensors")))
    assert names(to) == {"README.md", "export.json", "student.json", "student.safetensors"}
    assert not list(digits_run.glob(".export*"))


def test_a_file_that_says_something_else_is_not_kept(values: Values, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the writer had lost a bias: the earlier export stays, and nothing of the new one."""
    to = folder.export(requested(values(digits_run, format="safetensors")))
    before = (to / "export.json").read_bytes()
    save = formats.weights.save

    def lossy(model: nn.Module, card: dict[str, Any], path: Path) -> None:
        save(model, card, path)
        state = load_file(path)
        save_file({name: tensor * 1.01 if name == "fc.bias" else tensor for name, tensor in state.items()}, path)

    monkeypatch.setattr(formats.weights, "save", lossy)
    with pytest.raises(ExportError, match=r"student\.safetensors differs from the trained student"):
        folder.export(requested(values(digits_run, format="safetensors")))
    assert (to / "export.json").read_bytes() == before
    assert names(digits_run) == {"config.yaml", "metrics.json", "teacher.json", "student.json", "student.safetensors", "export"}


def test_what_came_in_between_is_left_alone(values: Values, digits_run: Path) -> None:
    asked = requested(values(digits_run, format="safetensors"))
    asked.to.mkdir()
    (asked.to / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        folder.export(asked)
    assert names(asked.to) == {"thesis.tex"}


def test_the_command(command: Callable[..., tuple[int, str, str]], digits_run: Path, tmp_path: Path) -> None:
    code, out, err = command("export", f"run={digits_run}", "format=[safetensors]", "to=there")
    assert (code, err) == (0, "")
    assert out.strip() == "there"
    assert "student.safetensors" in names(tmp_path / "there")
    assert command("export")[0] == 2
    code, _, err = command("export", f"run={digits_run}", "format=[onx]")
    assert code == 2 and "Did you mean 'onnx'" in err
    code, _, err = command("export", f"run={digits_run}", "formt=[onnx]")
    assert code == 2 and "formt" in err
    state = load_file(digits_run / "student.safetensors")
    save_file({**state, "fc.bias": state["fc.bias"] * float("nan")}, digits_run / "student.safetensors")
    code, _, err = command("export", f"run={digits_run}", "format=[timm]")
    assert code == 1 and not (digits_run / "export").exists()
