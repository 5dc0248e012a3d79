"""What a user may get wrong is found before torch is imported, and the sentence ends with the remedy."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdx.config.errors import ConfigError
from kdx.export.request import requested

Values = Callable[..., dict[str, Any]]

MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown format": ({"format": ["tim"]}, "Unknown format 'tim'", "Did you mean 'timm'"),
    "no format": ({"format": []}, "format=[]", "at least 1 item"),
    "another format": (
        {"format": "torchscript"},
        "Unknown format 'torchscript'",
        "Available: timm, safetensors, onnx, onnx_int8",
    ),
    "an old opset": ({"opset": 11}, "opset=11", "greater than or equal to 18"),
    "an opset that is none": ({"opset": "new"}, "opset=new", "integer"),
    "too few images for int8": ({"quantization_images": 9}, "quantization_images=9", "greater than or equal to 10"),
    "an empty batch": ({"batches": [1, 0]}, "batches=[1, 0]", "greater than or equal to 1"),
    "no truth": ({"fold_temperature": "perhaps"}, "fold_temperature=perhaps", "boolean"),
    "no run": ({"run": "???"}, "Missing required option", "run=FOLDER"),
    "a folder of something else": ({"run": "/"}, "run=/ is not the folder of a run", "it has no config.yaml"),
    "two mistakes, of which the format needs no run": ({"run": "/", "format": ["onxx"]}, "'onxx'", "Did you mean 'onnx'"),
    "a run that is not there": ({"run": "/nope"}, "/nope", "give the folder of a finished run"),
}


@pytest.mark.parametrize("changed, mistake, remedy", MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_told(values: Values, digits_run: Path, changed: dict[str, Any], mistake: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as told:
        requested(values(digits_run) | changed)
    assert mistake in str(told.value) and remedy in str(told.value)


@pytest.mark.parametrize(
    "name, said",
    [
        ("metrics.json", "not finished"),
        ("student.safetensors", "has no student.safetensors"),
        ("config.yaml", "config.yaml"),
    ],
)
def test_a_run_that_was_cut_off_is_refused(values: Values, digits_run: Path, name: str, said: str) -> None:
    (digits_run / name).unlink()
    with pytest.raises(ConfigError, match=said):
        requested(values(digits_run))


def test_a_broken_file_is_named(values: Values, digits_run: Path) -> None:
    (digits_run / "student.json").write_text("{")
    with pytest.raises(ConfigError, match=r"student\.json does not describe a student .*: give the folder of a finished run"):
        requested(values(digits_run))
    (digits_run / "student.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"does not describe a student \(no architecture\)"):
        requested(values(digits_run))


def test_an_absent_extra_is_named(values: Values, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else found(name, *rest))
    with pytest.raises(
        ConfigError, match=r"requires onnxscript: pip install kdx\[export\], or give format=\[timm,safetensors\]"
    ):
        requested(values(digits_run))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "executorch" else found(name, *rest))
    with pytest.raises(ConfigError, match=r"executorch_int8 requires executorch: pip install kdx\[executorch\]"):
        requested(values(digits_run, format="executorch_int8"))
    assert requested(values(digits_run, format=["timm", "safetensors"])).formats == ("timm", "safetensors")


def test_a_temperature_that_was_not_fitted_cannot_be_folded(values: Values, digits_run: Path) -> None:
    assert requested(values(digits_run, fold_temperature=True)).temperature == 2.5
    assert requested(values(digits_run)).temperature is None
    result = json.loads((digits_run / "metrics.json").read_text())
    del result["metrics"]["calibration_temperature/student"]
    (digits_run / "metrics.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"has no calibration_temperature/student.*give fold_temperature=false"):
        requested(values(digits_run, fold_temperature=True))


def test_what_others_put_there_is_left_alone(values: Values, digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="is a file: give a folder"):
        requested(values(digits_run, to=str(tmp_path / "file")))
    with pytest.raises(ConfigError, match=r"contains thesis\.tex"):
        requested(values(digits_run, to=str(tmp_path / "full")))
    (tmp_path / "full" / "export.json").write_text('{"files": {"student.onnx": {}}}')
    with pytest.raises(ConfigError, match=r"contains thesis\.tex"):
        requested(values(digits_run, to=str(tmp_path / "full")))
    assert requested(values(digits_run, to=str(tmp_path / "empty"))).to == tmp_path / "empty"
    assert requested(values(digits_run)).to == digits_run / "export"


def test_run_json_goes_before_config_yaml(values: Values, digits_run: Path) -> None:
    (digits_run / "run.json").write_text('{"config": {"name": "newer"}}')
    assert requested(values(digits_run)).run.config == {"name": "newer"}


def test_checking_imports_no_torch(digits_run: Path, tmp_path: Path) -> None:
    code = "import sys; from kdx.export import request; print(any(m.split('.')[0] in ('torch', 'timm') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
