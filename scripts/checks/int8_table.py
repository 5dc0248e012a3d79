"""What does rounding to int8 do to calibration and speed? Three students of the digits, before and after, as a Markdown table.

A ResNet-8 at 4 px (the main job), a CIFAR ResNet-20 and a MobileNetV3-small on digits enlarged to 32 px, n = 1 each, test. T is
fitted on val, to each file. Latency of one image: the files in turn, round after round, and the median of each, so that other
work on the machine slows all of them. ExecuTorch: uv run --extra executorch --extra export.

python scripts/checks/int8_table.py
python scripts/checks/int8_table.py --epochs 2 --students resnet20 --runtimes onnx --folder FOLDER
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from checking import run

from kdx.evaluation.exported import read_exported
from kdx.export.card import GRAPHS
from kdx.run.provenance import provenance

AT_32 = ("experiment=none", "data=digits", "teacher=none", "calibration=none", "temperature=none", "losses=[ce]")
AT_32 += ("views=same_resize", "resolution.student=32", "resolution.teacher=32", "optimizer.lr=0.005", "baselines=[]")
STUDENTS = {
    "digits": ("experiment=cqkd_digits", "baselines=[]"),
    "resnet20": (*AT_32, "network@student=cifar_resnet20"),
    "mobilenetv3": (*AT_32, "network@student=timm", "student.architecture=mobilenetv3_small_100"),
}
METRICS = {"accuracy": "student/accuracy", "NLL": "student/nll", "ECE": "student/ece", "ECE at T": "student_scaled/ece"}
COLUMNS = ("student", "file", *METRICS, "T", "agreement", "bytes", "ms")
WARM_UP, ROUNDS, SECONDS = 5, 400, 20.0  # calls of each file; of the rounds that follow, as many as there is time for


def table(root: Path, given: argparse.Namespace) -> bool:
    """Train each student, export it, and print the table. True, because there is nothing to expect."""
    machine = provenance(())["hardware"]
    cores = f"{machine['cpu_cores']} cores, {machine['threads']} threads"
    print(f"{machine['cpu']}, {cores}, torch {torch.__version__}, seed 0, n = 1, {given.epochs} epochs at 32 px\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    formats = [name for runtime in given.runtimes for name in (runtime, f"{runtime}_int8")]
    for name in given.students:
        folder = root / name
        epochs = [f"trainer.max_epochs={given.epochs}"] if name != "digits" or given.short else []
        words = [*STUDENTS[name], *epochs, "trainer=cpu", "logger=none", f"outputs={root}", f"hydra.run.dir={folder}"]
        command("train", *words)
        command("export", f"run={folder}", f"format=[{','.join(formats)}]", f"to={folder / 'export'}")
        reports = json.loads((folder / "export" / "export.json").read_text())["formats"]
        ms = latencies({one: folder / "export" / GRAPHS[one] for one in formats})
        for one in formats:
            precision = "int8" if one.endswith("_int8") else "fp32"
            rounding = reports[f"{one.removesuffix('_int8')}_int8"]["rounding"]
            report = rounding[precision]
            cells = [f"{report['metrics'][f'test/{key}']:.4f}" for key in METRICS.values()]
            agreement = f"{rounding['agreement']['test']:.4f}" if precision == "int8" else ""
            size = (folder / "export" / GRAPHS[one]).stat().st_size
            cells += [f"{report['temperature']:.4f}", agreement, f"{size:,}", f"{ms[one]:.3f}"]
            print(f"| {name} | {GRAPHS[one]} | {' | '.join(cells)} |", flush=True)
    return True


def latencies(files: dict[str, Path]) -> dict[str, float]:
    """Return the median time in ms of one image for each file, measured in turn."""
    opened = {name: read_exported(file).measured() for name, file in files.items()}
    side, channels = next((one.resolution.student, one.student.in_channels) for one in opened.values())
    image = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    taken: dict[str, list[float]] = {name: [] for name in opened}
    began = time.perf_counter()
    with torch.inference_mode():
        while len(taken[next(iter(taken))]) < WARM_UP + ROUNDS and time.perf_counter() - began < SECONDS:
            for name, one in opened.items():
                start = time.perf_counter()
                one.student(image)
                taken[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(seconds[WARM_UP:]) for name, seconds in taken.items()}


def command(name: str, *words: str) -> None:
    """Run a command of kdx in a process of its own."""
    subprocess.run([sys.executable, "-m", f"kdx.cli.{name}", *words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6, help="of the students at 32 px")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--runtimes", nargs="+", default=["onnx", "executorch"], choices=["onnx", "executorch"])
    parser.add_argument("--short", action="store_true", help="as few epochs for the main job, too")
    run(parser, table)
