"""What rounding to int8 does to a student: the file, the numbers before and after, T fitted again, and what can go wrong."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from kdx.config.cards import read_card
from kdx.config.errors import ConfigError
from kdx.costs import latency
from kdx.evaluation.measured_networks import student_of_card
from kdx.export import folder, onnx_int8, rounding, rounding_tables
from kdx.export.finished import read
from kdx.export.parity import ExportError
from kdx.export.request import requested
from kdx.training.logit_store import LogitStore

Values = Callable[..., dict[str, Any]]
Split = Callable[[str], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def values(fitted_run: Path) -> Values:
    """The values of conf/export.yaml for an export in int8."""
    text = (Path(__file__).parents[2] / "conf" / "export.yaml").read_text()
    shipped = {key: value for key, value in yaml.safe_load(text).items() if key not in ("defaults", "hydra")}
    return lambda **changed: {**shipped, "run": str(fitted_run), "format": "onnx_int8", **changed}


@pytest.fixture(scope="module")
def exported(values: Values, fitted_run: Path) -> Path:
    """An export with both ONNX files, the temperature outside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "BUDGET", 0.005)
        return folder.export(requested(values(format=["onnx", "onnx_int8"], to=str(fitted_run.parent / "out"))))


def report(to: Path) -> dict[str, Any]:
    return json.loads((to / "export.json").read_text())["formats"]["onnx_int8"]["rounding"]


def logits_of(file: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0].astype(np.float64)


def seen(run: Path, part: str) -> np.ndarray:
    """The same images as the student sees them: int8 may round the last bit of a pixel to the next number."""
    images = rounding.run_images(read(str(run)), 256)
    student = student_of_card(run / "student.safetensors", read_card(run / "student.json"), {})
    return torch.cat([batch.student_images for batch in images.bench(student).batches(images.measured[part], 8)]).numpy()


def notes_of(file: Path) -> dict[str, Any]:
    return {prop.key: prop.value for prop in onnx.load(str(file)).metadata_props}


def by_hand(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, NLL, ECE of 15 bins and entropy, in NumPy."""
    log_p = log_softmax(logits, -1)
    p = np.exp(log_p)
    confidence, right = p.max(-1), p.argmax(-1) == labels
    number = np.ceil(confidence * 15) - 1
    ece = sum(abs((confidence - right)[number == i].sum()) for i in range(15)) / len(labels)
    nll = -log_p[np.arange(len(labels)), labels].mean()
    return {"accuracy": right.mean(), "nll": nll, "ece": ece, "entropy": -(p * log_p).sum(-1).mean()}


def test_the_numbers_before_and_after_are_those_of_the_files(exported: Path, fitted_run: Path, digits_split: Split) -> None:
    found = report(exported)
    by_split = {part: {"fp32": digits_split(part)[0], "int8": seen(fitted_run, part)} for part in ("val", "test")}
    labels, temperatures = digits_split("val")[1], {}
    for name, file in (("fp32", "student.onnx"), ("int8", "student_int8.onnx")):
        np.testing.assert_allclose(*by_split["val"].values(), rtol=0, atol=1e-6)
        logits = logits_of(exported / file, by_split["val"][name])
        assert by_hand(logits, labels)["accuracy"] > 0.6  # there is something to lose
        nll = lambda log_t: by_hand(logits / np.exp(log_t), labels)["nll"]  # noqa: E731 - read once
        temperatures[name] = float(np.exp(minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x))
        assert found[name]["temperature"] == pytest.approx(temperatures[name], rel=1e-5)
        assert found[name]["bytes"] == pytest.approx((exported / file).stat().st_size, rel=0.02)  # but for the metadata
    assert abs(temperatures["fp32"] - temperatures["int8"]) > 1e-5  # rounding moved it
    for part in ("val", "test"):
        labels, images = digits_split(part)[1], by_split[part]
        files = {"fp32": "student.onnx", "int8": "student_int8.onnx"}
        pairs = {name: logits_of(exported / file, images[name]) for name, file in files.items()}
        difference = np.abs(pairs["fp32"] - pairs["int8"]).max()
        assert found["agreement"][part] == (pairs["fp32"].argmax(-1) == pairs["int8"].argmax(-1)).mean()
        assert found["max_difference"][part] == pytest.approx(difference, rel=1e-4) and difference > 1e-3
        for name, network, temperature in (
            ("fp32", "student", 1),
            ("fp32", "student_scaled", temperatures["fp32"]),
            ("int8", "student", 1),
            ("int8", "student_at_earlier", temperatures["fp32"]),
            ("int8", "student_scaled", temperatures["int8"]),
        ):
            for what, value in by_hand(pairs[name] / temperature, labels).items():
                measured = found[name]["metrics"][f"{part}/{network}/{what}"]
                assert measured == pytest.approx(value, abs=5e-6), (part, network, what)


def test_the_file_is_in_int8_per_channel_and_says_its_own_temperature(exported: Path) -> None:
    model = onnx.load(str(exported / "student_int8.onnx"))
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    dequantized = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert len(convolutions) == 9  # with the shortcuts
    for node in convolutions:
        weight, scale = (stored[name] for name in dequantized[node.input[1]].input[:2])
        assert weight.dtype == np.int8 and scale.shape == (weight.shape[0],) and node.input[0] in dequantized
    assert (exported / "student_int8.onnx").stat().st_size < 0.5 * (exported / "student.onnx").stat().st_size
    notes = notes_of(exported / "student_int8.onnx")
    assert json.loads(notes["kdx.calibration_temperature"]) == report(exported)["int8"]["temperature"]
    assert json.loads(notes["kdx.calibration_temperature_folded"]) is None
    assert json.loads(notes["kdx.label_names"])[3] == "digit 3"
    assert json.loads(notes_of(exported / "student.onnx")["kdx.calibration_temperature"]) == 2.0  # the run's


def test_a_folded_temperature_is_the_one_after_rounding(
    exported: Path, values: Values, digits_split: Split, tmp_path: Path
) -> None:
    to = folder.export(requested(values(fold_temperature=True, to=str(tmp_path / "out"))))
    fitted = report(exported)["int8"]["temperature"]
    assert report(to)["int8"]["temperature"] == fitted != 2.0  # not that of the run, nor fitted to divided logits
    images, _ = digits_split("val")
    whole, divided = logits_of(exported / "student_int8.onnx", images), logits_of(to / "student_int8.onnx", images)
    np.testing.assert_allclose(divided, whole / fitted, rtol=1e-5, atol=1e-6)
    notes = notes_of(to / "student_int8.onnx")
    assert json.loads(notes["kdx.calibration_temperature_folded"]) == fitted
    assert f"T = {fitted:.4f} is **included**" in (to / "README.md").read_text()


def test_the_same_export_gives_the_same_bytes(exported: Path, values: Values, tmp_path: Path) -> None:
    to = folder.export(requested(values(to=str(tmp_path / "out"))))
    first, second = (hashlib.sha256((place / "student_int8.onnx").read_bytes()).hexdigest() for place in (exported, to))
    assert first == second and not list(tmp_path.glob(".out*"))


def test_the_ranges_come_from_training_images_alone(fitted_run: Path, digits_split: Split) -> None:
    images = rounding.run_images(read(str(fitted_run)), 40)
    assert set(np.bincount(images.train.labels)) <= {3, 4, 5}  # in the proportions of the classes
    trained, _ = digits_split("train")
    kept = {image.tobytes() for image in trained}
    chosen = {(images.train[i].astype(np.float32) / 255).tobytes() for i in range(40)}
    assert len(chosen) == 40 and chosen <= kept
    assert {name: len(of_split) for name, of_split in images.measured.items()} == {"val": 359, "test": 539}


def test_the_card_and_the_table_say_it(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, text = report(exported), (exported / "README.md").read_text()
    scaled = found["int8"]["metrics"]["test/student_scaled/ece"]
    assert "## Rounding to int8" in text and found["latency"]["verdict"] in text
    assert f"T = {found['int8']['temperature']:.4f} is **not** included" in text and f"| {scaled:.4f} |" in text
    assert 'InferenceSession("student_int8.onnx"' in text and "student_int8.onnx accepts any batch size, but only 8 px" in text
    assert "- onnx: maximum difference" in text and "- onnx_int8: see Rounding to int8" in text
    rounding_tables.show(exported)
    out = capsys.readouterr().out
    assert f"{scaled:.4f}" in out and "int8, its T" in out and found["latency"]["verdict"] in " ".join(out.split())
    assert out.count("int8, T of fp32") == 2  # val and test


def test_speed_is_told_plainly() -> None:
    assert rounding.speed(1.0, 1.5) == "Int8 is slower than fp32: 1.50 times its latency"
    assert rounding.speed(2.0, 1.0) == "Int8 is faster than fp32: 0.50 times its latency"
    assert rounding.speed(2.0, 2.1) == "Int8 is as fast as fp32 within 10 %: 1.05 times its latency"


def test_a_loss_of_accuracy_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def measured(accuracy: float) -> rounding.Measured:
        return rounding.Measured({"val/student/accuracy": accuracy}, None, {})

    rounding.warn_of_loss(measured(0.9), measured(0.885))
    rounding.warn_of_loss(measured(0.8), measured(0.9))
    rounding.warn_of_loss(rounding.Measured({}, None, {}), rounding.Measured({}, None, {}))
    assert not caplog.records
    rounding.warn_of_loss(measured(0.9), measured(0.75))
    assert "int8 loses 0.150 accuracy on val (0.7500 after 0.9000): use the fp32 file" in caplog.text


def test_differences_count_classes_and_logits() -> None:
    def kept(*batches: list[list[float]]) -> rounding.Measured:
        store = LogitStore()
        for batch in batches:
            store.append(torch.tensor(batch))
        return rounding.Measured({}, None, {"val": store})

    one = kept([[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0]])
    other = kept([[0.5, 0.0], [0.0, 3.0]], [[0.0, 1.0]])
    assert rounding.differences(one, one) == {"agreement": {"val": 1.0}, "max_difference": {"val": 0.0}}
    assert rounding.differences(one, other) == {"agreement": {"val": pytest.approx(2 / 3)}, "max_difference": {"val": 3.0}}


def test_few_images_are_a_warning_and_too_few_an_error(
    fitted_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def copy(name: str, **data: Any) -> str:
        place = tmp_path / name
        place.mkdir()
        for file in fitted_run.iterdir():
            if file.is_file():
                (place / file.name).write_bytes(file.read_bytes())
        config = yaml.safe_load((fitted_run / "config.yaml").read_text())
        (place / "config.yaml").write_text(
            yaml.safe_dump({**config, **data, "data": {**config["data"], **data.get("data", {})}})
        )
        return str(place)

    with caplog.at_level(logging.WARNING, "kdx"):
        assert len(rounding.run_images(read(str(fitted_run)), 301).train) == 300
    assert "only 300 training images" in caplog.text and "quantization_images=300 accepts that" in caplog.text
    few = copy("few", data={"train_size": 8, "batch_size": 4})
    with pytest.raises(ConfigError, match=r"at least 10 training images, but the run has 8: export without int8"):
        rounding.run_images(read(few), 256)
    reserved = copy("reserved", test=False)
    assert list(rounding.run_images(read(reserved), 30).measured) == ["val"]
    source = {"_target_": "kdx.data.folders.ImageFolder", "root": str(tmp_path / "gone")}
    gone = copy("gone", data={"source": source})
    with pytest.raises(ConfigError, match=r"int8 needs the images of the run .*gone.*restore the data set"):
        rounding.run_images(read(gone), 256)


def test_what_cannot_be_quantized_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    before = logging.getLogger().handlers[:]
    with pytest.raises(ExportError, match=r"cannot quantize this network \(.*\): export without onnx_int8"):
        onnx_int8.quantize(tmp_path / "a.onnx", tmp_path / "b.onnx", iter([]))
    assert logging.getLogger().handlers == before


def test_the_command_prints_the_table(command: Callable[..., tuple[int, str, str]], fitted_run: Path, tmp_path: Path) -> None:
    code, out, err = command(
        "export", f"run={fitted_run}", "format=[onnx_int8]", f"to={tmp_path / 'to'}", "quantization_images=64"
    )
    assert code == 0 and err == ""
    assert out.strip().endswith(str(tmp_path / "to")) and "int8, its T" in out and "64 training images" in out
