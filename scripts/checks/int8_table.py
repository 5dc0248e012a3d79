"""What does rounding to int8 do to calibration? Three students of the digits, before and after, as a Markdown table.

A ResNet-8 at 4 px (the main job), a CIFAR ResNet-20 and a MobileNetV3-small at 32 px, n = 1 each. One pass over all takes
minutes on 2 cores.

python scripts/checks/int8_table.py
python scripts/checks/int8_table.py --epochs 2 --students resnet20 --folder FOLDER
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from checking import run

from kdx.export.rounding_tables import COLUMNS, facts, rows
from kdx.run.provenance import provenance

AT_32 = ("experiment=none", "data=digits", "teacher=none", "calibration=none", "temperature=none", "losses=[ce]")
AT_32 += ("views=same_resize", "resolution.student=32", "resolution.teacher=32", "optimizer.lr=0.005", "baselines=[]")
STUDENTS = {
    "digits": ("experiment=cqkd_digits", "baselines=[]"),
    "resnet20": (*AT_32, "network@student=cifar_resnet20"),
    "mobilenetv3": (*AT_32, "network@student=timm", "student.architecture=mobilenetv3_small_100"),
}


def table(root: Path, given: argparse.Namespace) -> bool:
    """Train each student, export it in int8, and print the table. True, because there is nothing to expect."""
    machine = provenance(())["hardware"]
    cores = f"{machine['cpu_cores']} cores, {machine['threads']} threads"
    print(f"{machine['cpu']}, {cores}, torch {torch.__version__}, seed 0, n = 1\n")
    print(f"| student | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 1)}|")
    told = []
    for name in given.students:
        folder = root / name
        epochs = [f"trainer.max_epochs={given.epochs}"] if name != "digits" or given.short else []
        words = [*STUDENTS[name], *epochs, "trainer=cpu", "logger=none", f"outputs={root}", f"hydra.run.dir={folder}"]
        command("train", *words)
        command("export", f"run={folder}", "format=[onnx_int8]", f"to={folder / 'export'}")
        report = json.loads((folder / "export" / "export.json").read_text())["formats"]["onnx_int8"]["rounding"]
        for row in rows(report):
            print(f"| {name} | {' | '.join(row)} |", flush=True)
        told += [f"- {name}: {fact}" for fact in facts(report)]
    print("\n".join(["", *told]))
    return True


def command(name: str, *words: str) -> None:
    """Run a command of kdx in a process of its own."""
    subprocess.run([sys.executable, "-m", f"kdx.cli.{name}", *words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6, help="of the students at 32 px")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--short", action="store_true", help="as few epochs for the main job, too")
    run(parser, table)
