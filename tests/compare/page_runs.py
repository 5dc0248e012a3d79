"""RunRecord folders with all that a page can draw: curves, reliability, shifts, pictures. Their numbers follow simple laws."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from fake import fake_run
from PIL import Image, ImageDraw

from kdx.report import disagreement

TAU, PX, EPOCHS = "temperature.value", "resolution.student", "trainer.max_epochs"
POINTS: list[dict[str, Any]] = [
    *({TAU: tau} for tau in (1.0, 4.0, 10.0)),
    *({PX: px} for px in (6, 8)),
    *({EPOCHS: epochs} for epochs in (50, 300)),
    {"baseline": "scratch"},
]


def rich_run(folder: Path, config: dict[str, Any], state: str = "finished", epochs: int = 40, **more: Any) -> Path:
    """`fake_run` with numbers that follow from the config and the seed, and with every file that a page reads."""
    tau, px, length = config.get(TAU, 10.0), config.get(PX, 4), config.get(EPOCHS, 150)
    taught = config.get("baseline") != "scratch"
    rng = np.random.default_rng(zlib.crc32(repr(sorted(config.items())).encode()))
    best = 0.8 + 0.12 * (1 - 2.0 ** (-px / 3)) - 0.012 * abs(np.log(tau / 4)) + 0.01 * np.log10(length / 100) + 0.02 * taught
    accuracy = float(best + 0.006 * rng.standard_normal())
    ece = float(0.02 + 0.012 * abs(np.log(tau / 4)) + 0.004 * rng.random())
    metrics: dict[str, Any] = {"seconds": length * 0.55, "teacher/macs": 4.4e7, "teacher/latency_ms_1": 4.0}
    metrics |= {"student/macs": 75e3 * px**2, "student/latency_ms_1": 1.1 + 0.1 * px}
    for split in ("val", "test"):
        student = {
            "accuracy": accuracy,
            "ece": ece,
            "nll": 1.4 * (1 - accuracy) + ece,
            "entropy": 0.2 + 0.03 * float(np.log(tau)),
        }
        metrics |= {f"{split}/student/{what}": value for what, value in student.items()}
        for side in {4, 6, 8} - {px}:
            metrics[f"{split}/student_at_{side}/accuracy"] = accuracy - 0.08 * abs(float(np.log2(side / px)))
        metrics |= {f"{split}/teacher/entropy": 0.13, f"{split}/teacher/accuracy": 0.963}
    folder = fake_run(folder, config, {**metrics, **more.pop("metrics", {})}, state, **more)
    (folder / "metrics.csv").write_text(_curves(rng, accuracy, ece, tau, epochs if state == "finished" else epochs // 2))
    if state == "stopped":
        for file in folder.iterdir():
            os.utime(file, (1.7e9, 1.7e9))
    if state == "finished":
        networks = [("student", px, 2 * ece), ("student_scaled", px, 0.3 * ece)] + ([("teacher", 8, 0.01)] if taught else [])
        diagrams = [_diagram(*network) for network in networks]
        (folder / "reliability.json").write_text(json.dumps({"num_bins": 15, "diagrams": diagrams}))
        _picture(rng).save(folder / "views.png")
    return folder


def _curves(rng: np.random.Generator, accuracy: float, ece: float, tau: float, epochs: int) -> str:
    done = (np.arange(epochs) + 1) / epochs
    noise = rng.standard_normal((4, epochs)) * 0.01
    rise = 1 - np.exp(-5 * done)
    columns = {
        "train/loss": 2.3 * np.exp(-3 * done) + 0.2 + noise[0],
        "train/lr": 0.001 * (1 - done),
        "train/temperature": tau + np.sin(6 * done),
        "train/lambda": np.minimum(1.0, 2 * done),
        "val/student/accuracy": accuracy * rise + noise[1],
        "val/student/ece": ece + 0.1 * (1 - rise) + abs(noise[2]),
        "val/student/nll": 0.3 + 2 * (1 - rise) + noise[3],
        "val/student/entropy": 0.3 + 1.5 * (1 - rise),
        "val/agreement": 0.9 * rise,
        "val/kl": 0.3 + (1 - rise),
    }
    lines = [",".join(["epoch", "step", *columns])]
    for epoch, row in enumerate(np.stack(list(columns.values()), 1), 1):
        for on in ("train/", "val/"):  # two rows per epoch, as Lightning's logger writes
            cells = [f"{value:.17g}" if name.startswith(on) else "" for name, value in zip(columns, row, strict=True)]
            lines.append(",".join([str(epoch), str(5 * epoch - 1), *cells]))
    return "\n".join(lines) + "\n"


def _diagram(network: str, resolution: int, bias: float) -> dict[str, Any]:
    centers = (np.arange(15) + 0.5) / 15
    weights = np.exp(4 * (centers - 1))
    count = np.round(539 * weights / weights.sum())
    correct = np.round(np.clip(count * (centers - bias * np.sin(np.pi * centers)), 0, count))
    sums = {"count": count, "confidence": count * centers, "correct": correct}
    return {
        "split": "test",
        "network": network,
        "resolution": resolution,
        **{name: values.tolist() for name, values in sums.items()},
    }


def _picture(rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (1480, 560), "white")
    pen = ImageDraw.Draw(picture)
    for column in range(8):
        for row in range(3):
            x, y = 110 + column * 170, 10 + row * 172
            pen.rectangle((x, y, x + 150, y + 150), fill=tuple(int(v) for v in rng.integers(40, 230, 3)))
    return picture


def shifted(folder: Path) -> None:
    """An evaluation under shift, as `kdx-evaluate shift=...` writes it: accuracy falls by 0.1 per step of severity."""
    clean = {"test/student/accuracy": 0.9, "test/teacher/accuracy": 0.95}
    entries = [
        {
            "corruption": corruption,
            "severity": severity,
            "metrics": {name: value - 0.1 * severity for name, value in clean.items()},
        }
        for corruption in ("blur", "noise")
        for severity in (1, 3, 5)
    ]
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "shift.json").write_text(json.dumps({"of": "student", "clean": clean, "shift": entries}))


def disagreeing(folder: Path) -> None:
    """The files of the images with the largest disagreement, as a run writes them; the classes are dog and cat."""
    pairs = [(1, 1, 0), (1, 1, 0), (1, 0, 0)]  # label, teacher, student
    sure = {"teacher_confidence": 0.9, "student_confidence": 0.6, "kl": 2.0}
    rows = [
        {"index": i, "label": label, "teacher": teacher, "student": student, **sure}
        for i, (label, teacher, student) in enumerate(pairs)
    ]
    images = [np.full((3, 8, 8), 60 * (i + 1), np.uint8) for i in range(len(rows))]
    disagreement.picture(images, rows, ["dog", "cat"]).save(folder / "disagreement.png")
    (folder / "disagreement.json").write_text(json.dumps({"split": "test", "examples": rows}))
    (folder / "per_class.csv").write_text("split,class,name,count\ntest,0,dog,1\ntest,1,cat,2\n")


def study(root: Path) -> None:
    """A search, as `kdx-tune` writes it, with two objectives, so that it has every chart."""
    goals = {"val/student/accuracy": "max", "val/student/ece": "min"}
    kinds = [
        ("finished", [0.5, 0.2], None),
        ("pruned", None, [3, 0.25]),
        ("failed", None, None),
        ("finished", [0.75, 0.3], None),
    ]
    trials = [
        {"number": number, "state": state, "params": {TAU: 2.0 * number + 1, "x": "<b>"}, "values": values, "last": last}
        for number, (state, values, last) in enumerate(kinds)
    ]
    shares = {name: {TAU: 0.7, "x": 0.3} for name in goals}
    content = {"objectives": goals, "trials": trials, "best": [0, 3], "importances": shares}
    (root / "study.json").write_text(json.dumps(content))


def sweep(root: Path, seeds: int = 3, epochs: int = 40) -> Path:
    """Temperatures, resolutions, lengths and the baseline; and a run that goes on, one that was stopped, one damaged."""
    for i, point in enumerate(POINTS):
        for seed in range(seeds):
            folder = rich_run(root / f"{i}-{seed}", {**point, "seed": seed}, epochs=epochs)
            if i == 1:
                shifted(folder)
    rich_run(root / "running", {TAU: 4.0, "seed": seeds}, "running", epochs=epochs)
    rich_run(root / "stopped", {TAU: 1.0, "seed": seeds}, "stopped", epochs=epochs)
    rich_run(root / "damaged", {"seed": seeds}, "damaged", epochs=epochs)
    study(root)
    return root
