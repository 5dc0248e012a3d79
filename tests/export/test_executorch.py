"""ExecuTorch files say what the network says, round as int8 does elsewhere, and are measured by kdx-evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdx.export import executorch_file
from kdx.export.finished import read
from kdx.export.parity import ExportError
from kdx.export.ready import ready
from kdx.export.request import requested
from kdx.networks.executorch_network import ExecutorchNetwork

pytest.importorskip("executorch")
pytestmark = pytest.mark.long
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def exported(fitted_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in both forms with the temperature folded in."""
    from kdx.export import folder

    to = tmp_path_factory.mktemp("pte") / "out"
    values: dict[str, Any] = {"run": str(fitted_run), "format": ["executorch", "executorch_int8"], "to": str(to)}
    values |= {
        "fold_temperature": True,
        "opset": None,
        "batches": [1, 3],
        "quantization_images": 40,
        "push": None,
        "private": True,
    }
    return folder.export(requested(values))


def test_each_file_divides_by_its_own_temperature(
    exported: Path, fitted_run: Path, digits_split: Callable[[str], tuple[np.ndarray, np.ndarray]]
) -> None:
    report = json.loads((exported / "export.json").read_text())["formats"]
    images = torch.from_numpy(digits_split("val")[0][:40])
    from kdx.export.student import load

    reference = load(read(str(fitted_run)))(images)
    fp32, int8 = (ExecutorchNetwork(exported / name) for name in ("student.pte", "student_int8.pte"))
    torch.testing.assert_close(fp32(images), reference / 2.0, rtol=1e-4, atol=1e-5)
    own = report["executorch_int8"]["rounding"]["int8"]["temperature"]
    assert fp32.card["calibration_temperature_folded"] == 2.0 and int8.card["calibration_temperature_folded"] == own
    difference = (int8(images) * own - reference).abs().max()
    assert 1e-3 < difference < 0.2 * reference.abs().max()
    assert fp32.card["label_names"][3] == "digit 3" and (fp32.num_classes, fp32.in_channels, fp32.side) == (10, 1, 8)
    sizes = [(exported / name).stat().st_size for name in ("student.pte", "student_int8.pte")]
    assert sizes[1] < 0.6 * sizes[0]
    assert (
        report["executorch"]["max_difference"] < 1e-3
        and "ExecuTorch has the threads" in report["executorch"]["latency"]["protocol"]
    )


def test_the_card_loads_it(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    text = Path("README.md").read_text()
    code = next(part.partition("```")[0] for part in text.split("```python\n")[1:] if '"student_int8.pte"' in part)
    scope: dict[str, Any] = {}
    exec(code, scope)
    torch.testing.assert_close(scope["logits"], ExecutorchNetwork(Path("student_int8.pte"))(scope["images"]))
    assert "student.pte accepts one image at a time, but only 8 px" in text and "ms in executorch" in text


def test_it_is_measured_as_it_was_at_the_export(exported: Path, command: Command, tmp_path: Path) -> None:
    report = json.loads((exported / "export.json").read_text())["formats"]["executorch_int8"]["rounding"]
    words = [f"file={exported}/student_int8.pte", "data=digits", "split=val", "to=there", "name=a"]
    code, _, err = command("evaluate", *words)
    assert code == 0, err
    found = json.loads((tmp_path / "there" / "a.json").read_text())["clean"]
    for what in ("accuracy", "nll", "ece", "entropy"):  # T is in the file
        assert found[f"val/student/{what}"] == pytest.approx(report["int8"]["metrics"][f"val/student_scaled/{what}"], abs=1e-6)


def test_what_cannot_be_read_or_written_is_told(fitted_run: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "text.pte").write_text("no program")
    code, _, err = command("evaluate", "file=text.pte", "data=digits", "to=there")
    assert code == 2 and "ExecuTorch cannot load text.pte" in err and "export it again with kdx-export" in err

    class Branches(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) if images.sum() > 0 else -images.flatten(1)

    values: dict[str, Any] = {"run": str(fitted_run), "format": ["executorch"], "to": str(tmp_path / "out")}
    values |= {
        "fold_temperature": False,
        "opset": None,
        "batches": [1],
        "quantization_images": 40,
        "push": None,
        "private": True,
    }
    with pytest.raises(ExportError, match=r"ExecuTorch cannot export this network .*: export without executorch"):
        executorch_file.lower(Branches(), ready(requested(values)), tmp_path / "a.pte")
    assert not (tmp_path / "a.pte").exists()
