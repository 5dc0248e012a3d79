"""The final pass: who is assessed, on how many ranks, and what a run keeps of it."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.metrics import functional
from kdx.metrics.margin import Margin
from kdx.metrics.overconfidence import ConfidenceWhenWrong
from kdx.report.reliability import figure
from kdx.training.final_pass import FinalPass, FinalPassResult
from kdx.types import Batch, Draw, Examples, Outputs, Pair
from kdx.views.render import Resizing

CAST = {"student": 4, "student_scaled": 4, "teacher": 8, "teacher_scaled": 8, "teacher_at_student_resolution": 4}
ADDED = {"margin": Margin(), "confidence_when_wrong": ConfidenceWhenWrong()}


class Halved:
    """A teacher that reads its logits off the pixels, and is twice as sure as it should be."""

    calibration_temperature = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        return 2 * images.flatten(1)


def example(size: int = 101) -> tuple[Tensor, Tensor, Tensor]:
    """Student logits [N,5], teacher logits, labels."""
    g = torch.Generator().manual_seed(0)
    teacher = 2 * torch.randn(size, 5, generator=g)
    label = torch.multinomial(teacher.softmax(-1), 1, generator=g)[:, 0]
    return 0.3 * teacher + torch.randn(size, 5, generator=g), teacher, label


def passed(rows: list[Tensor], final: FinalPass, teacher: Halved) -> FinalPassResult:
    student, logits, label = example()
    for own in rows:
        outputs = Outputs(student[own], logits[own], label[own], index=own)
        raw = teacher.calibration_temperature * logits[own]
        final.add(SimpleNamespace(teacher=teacher, student=None), Batch(logits[own][..., None, None], None), outputs, raw)
    return final.finish()


def plain(findings: FinalPassResult) -> dict[str, Any]:
    return {"numbers": findings.numbers, "temperatures": findings.temperatures, "furthest": findings.furthest}


def test_everyone_in_the_cast_is_measured_on_what_they_say() -> None:
    student, logits, label = example()
    teacher = Halved()
    found = passed(list(torch.arange(101).split(20)), FinalPass(CAST, 5), teacher)
    temperatures = found.temperatures
    said = {
        "student": student,
        "student_scaled": student / temperatures["student_scaled"],
        "teacher": logits,
        "teacher_scaled": logits / temperatures["teacher_scaled"],
        "teacher_at_student_resolution": 2 * logits,
    }
    for who, of in said.items():
        log_probs = of.double().log_softmax(-1)
        assert found.numbers[f"{who}/nll"] == pytest.approx(functional.nll(log_probs, label).mean().item(), rel=1e-6), who
        assert found.numbers[f"{who}/ece_mass"] >= 0
    for who in ("student", "teacher"):
        grid = temperatures[f"{who}_scaled"] * torch.tensor([0.99, 1.0, 1.01])
        nll = [F.cross_entropy(said[who] / temperature, label).item() for temperature in grid]
        assert min(nll) == nll[1], who
    assert {row["index"] for row in found.furthest} <= set(range(101)) and len(found.furthest) == 16


def test_known_temperatures_are_taken_and_a_calibrated_teacher_is_shown_raw() -> None:
    student, logits, label = example()
    teacher = Halved()
    teacher.calibration_temperature = 4.0
    cast = {"student": 4, "student_scaled": 4, "teacher": 8, "teacher_raw": 8}
    found = passed([torch.arange(101)], FinalPass(cast, 5, {"student_scaled": 2.5, "someone": 3.0}), teacher)
    assert found.temperatures == {"student_scaled": 2.5}
    assert found.numbers["student_scaled/nll"] == pytest.approx(F.cross_entropy(student / 2.5, label).item(), rel=1e-5)
    assert found.numbers["teacher_raw/nll"] == pytest.approx(F.cross_entropy(4 * logits, label).item(), rel=1e-5)


def test_who_is_scaled_by_an_unknown_temperature_is_left_out_of_a_split_that_none_may_be_fitted_on() -> None:
    found = passed([torch.arange(101)], FinalPass(CAST, 5, {"teacher_scaled": 2.0}), Halved())
    assert found.temperatures == {"teacher_scaled": 2.0}
    assert found.assessed.keys() == CAST.keys() - {"student_scaled"}


def test_it_works_in_inference_mode_and_twice_gives_the_same() -> None:
    rows = list(torch.arange(101).split(20))
    with torch.inference_mode():
        inside = passed(rows, FinalPass(CAST, 5), Halved())
    assert plain(inside) == plain(passed(rows, FinalPass(CAST, 5), Halved()))


@pytest.mark.long
def test_two_ranks_of_a_split_that_does_not_divide_find_what_one_finds(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, __file__, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    try:
        first = share(tmp_path, 0)
        _, error = other.communicate(timeout=300)
        assert other.returncode == 0, error
    finally:
        other.kill()
    one = plain(passed(list(torch.arange(101).split(20)), FinalPass(CAST, 5, added_metrics=ADDED), Halved()))
    assert {f"{who}/{name}" for who in CAST for name in ADDED} <= one["numbers"].keys()
    assert json.loads((tmp_path / "other.json").read_text()) == first
    assert first["numbers"] == pytest.approx(one["numbers"], rel=1e-9, abs=1e-12)
    assert first["temperatures"] == pytest.approx(one["temperatures"], rel=1e-9)
    assert [row["index"] for row in first["furthest"]] == [row["index"] for row in one["furthest"]]


def share(folder: Path, rank: int) -> dict[str, Any]:
    """What one of two ranks finds that has seen rows 0-49 or 50-100, as the sampler deals them out."""
    meet, patience = f"file://{folder}/meet", timedelta(seconds=300)
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=patience)
    try:
        rows = list(torch.arange(50 * rank, 50 + 51 * rank).split(20))
        return plain(passed(rows, FinalPass(CAST, 5, added_metrics=ADDED), Halved()))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("resident", [True, False])
def test_further_resolutions_show_what_an_observer_of_their_own_would(resident: bool) -> None:
    from kdx.views.crops import Center
    from kdx.views.observer import Observer
    from kdx.views.policies import SharedView

    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 1, 12, 12), dtype=np.uint8))
    draw = Draw(0, 0, 0, np.arange(3))
    examples = Examples(draw, pixels if resident else list(pixels), np.full((3, 2), 12), torch.arange(3))
    policy, filters = SharedView(Center(0.5)), ("area", "bicubic")
    own = {side: Observer(policy, Pair(12, side), 5, resizing=Resizing(*filters)) for side in (4, 6, 8)}
    wide = own[4].widened([6, 8])
    batch = wide.finish(wide.look(examples).to(torch.device("cpu")))
    assert torch.equal(batch.student_images, own[4](examples).student_images)
    assert torch.equal(batch.teacher_images, own[4](examples).teacher_images)
    assert batch.further_images.keys() == {6, 8}
    for side, images in batch.further_images.items():
        assert torch.equal(images, own[side](examples).student_images)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {"student": 4, "student_scaled": 4, "teacher": 8, "teacher_raw": 8, "teacher_at_student_resolution": 4}),
        (("calibration=none",), CAST),
        (("experiment=supervised_digits", "resolution.student=6"), {"student": 6, "student_scaled": 6}),
        (("experiment=dml_digits", "+network@peers.members.a=cifar_resnet20"), {"student": 4, "student_scaled": 4}),
        (("resolution.student=8",), {"student": 8, "student_scaled": 8, "teacher": 8, "teacher_raw": 8}),
        (
            ("experiment=supervised_digits", "resolution.student=[4,8,6]"),
            {"student": 8, "student_scaled": 8, "student_at_6": 6, "student_at_4": 4},
        ),
    ],
)
def test_who_is_assessed(config: Callable[..., Any], overrides: tuple[str, ...], expected: dict[str, int]) -> None:
    from kdx.experiment.final_metrics import assessed_networks

    assert assessed_networks(config(*overrides), labels=True) == expected
    unscaled = {who: side for who, side in expected.items() if not who.endswith("_scaled")}
    assert assessed_networks(config(*overrides), labels=False) == unscaled


def test_a_run_keeps_it_all_and_evaluate_says_the_same(
    train: Callable[..., Path], command: Callable[..., tuple[int, str, str]]
) -> None:
    folder = train("run", "resolution.student=[4,6]", "trainer.max_epochs=3")
    metrics = json.loads((folder / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    metrics = metrics["metrics"]
    everyone = {"student": 6, "student_scaled": 6, "student_at_4": 4, "teacher": 8, "teacher_raw": 8}
    everyone["teacher_at_student_resolution"] = 6
    assert all(math.isfinite(value) for value in metrics.values())
    for split in ("val", "test"):
        own = {who: metrics[f"{split}/{who}/accuracy"] for who in everyone}
        assert own["student"] == own["student_scaled"] and own["teacher"] == own["teacher_raw"]
        assert metrics[f"{split}/teacher_raw/nll"] != metrics[f"{split}/teacher/nll"]
    scale = metrics["calibration_temperature/student"]
    assert 0.01 <= scale <= 100
    assert metrics["val/student_scaled/nll"] <= metrics["val/student/nll"]
    low = {what: metrics[f"val/teacher_at_student_resolution/{what}"] for what in ("accuracy", "nll", "ece")}
    known = {what: metrics[f"preflight/teacher_at_student_resolution/{what}"] for what in low}
    assert low == pytest.approx(known)
    raw = {what: metrics[f"val/teacher_raw/{what}"] for what in low}
    assert raw == pytest.approx({what: metrics[f"preflight/teacher_raw/{what}"] for what in low}, abs=1e-6)

    content = json.loads((folder / "reliability.json").read_text())
    assert {(d["split"], d["network"]): d["resolution"] for d in content["diagrams"]} == {
        (split, who): side for split in ("val", "test") for who, side in everyone.items()
    }
    for diagram in content["diagrams"]:
        count, confidence, correct = (np.array(diagram[name]) for name in ("count", "confidence", "correct"))
        assert len(count) == content["num_bins"] == 15
        prefix = f"{diagram['split']}/{diagram['network']}"
        assert np.abs(confidence - correct).sum() / count.sum() == pytest.approx(metrics[f"{prefix}/ece"])
        assert correct.sum() / count.sum() == pytest.approx(metrics[f"{prefix}/accuracy"])

    with (folder / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    for who in everyone:
        right = sum(int(row["count"]) * float(row[f"{who}_accuracy"]) for row in rows if row["split"] == "test")
        total = sum(int(row["count"]) for row in rows if row["split"] == "test")
        assert right / total == pytest.approx(metrics[f"test/{who}/accuracy"])

    furthest = json.loads((folder / "disagreement.json").read_text())
    assert furthest["split"] == "test" and len(furthest["examples"]) == 16
    assert furthest["examples"][0]["kl"] > metrics["test/kl"]
    assert {"reliability.png", "disagreement.png"} <= {path.name for path in folder.iterdir()}
    figure(content).savefig(folder / "reliability.png")  # as a run outside of the tests does

    assert command("evaluate", f"run={folder}", "split=test")[0] == 0
    again = json.loads((folder / "evaluation-test.json").read_text())["metrics"]
    assert {k: v for k, v in again.items() if k.startswith("test/")} == {
        k: v for k, v in metrics.items() if k.startswith("test/")
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = share(Path(sys.argv[1]), 1)
    (Path(sys.argv[1]) / "other.json").write_text(json.dumps(found))


def test_a_picture_that_cannot_be_drawn_costs_no_numbers(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from kdx.report import disagreement, reliability

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(reliability, "figure", full)
    monkeypatch.setattr(disagreement, "picture", full)
    folder = train("run")
    assert (folder / "metrics.json").is_file() and (folder / "reliability.json").is_file()
    assert not list(folder.glob("reliability.png")) + list(folder.glob("disagreement.png"))
    assert "reliability.png not drawn: No space left" in (folder / "train.log").read_text()
