"""Does a student that is trained rounded to int8 (experiment=qad_digits) make a better int8 file than one rounded afterwards?

Three arms at the same budget: images, views, teacher, initial weights, steps, learning rates and epochs at which val is
measured; the number of runs that are tried is one each. A step with rounding takes longer, and the seconds are printed.

- after: experiment=cqkd_digits, selected by val in float32 and rounded afterwards
- selected: the same, selected by val of the rounded student
- qad: the same with callbacks=int8, that is experiment=qad_digits: trained and selected rounded

All are exported as onnx_int8, with T fitted again on val. Numbers are of the int8 files on test, mean and standard deviation
over seeds, then paired differences to `after` with Student's 95 % interval. Also how often the float32 and int8 files agree.

python scripts/checks/qad.py
python scripts/checks/qad.py --seeds 2 --words trainer.max_epochs=2
python scripts/checks/qad.py --base mobilenetv3 --words trainer.max_epochs=6   # labels only, digits enlarged to 32 px
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
from pathlib import Path
from typing import Any

import yaml
from checking import run
from int8_table import STUDENTS

import kdx
from kdx.compare.statistics import student_interval
from kdx.config.check import conf_dir
from kdx.export import folder
from kdx.export.request import requested
from kdx.run.provenance import provenance

SHARED = ("baselines=[]", "logger=none", "trainer=cpu")
BASES = {"digits": ("experiment=cqkd_digits",), **{name: STUDENTS[name] for name in ("resnet20", "mobilenetv3")}}
ARMS = {
    "after": (),
    "selected": ("callbacks=int8", "callbacks.int8.start=1", "callbacks.int8.freeze_batchnorm=1"),
    "qad": ("callbacks=int8",),
}
NUMBERS = {
    "accuracy": "test/student/accuracy",
    "NLL": "test/student/nll",
    "ECE": "test/student/ece",
    "NLL at its T": "test/student_scaled/nll",
    "ECE at its T": "test/student_scaled/ece",
}
LOSSES = {f"{name}, int8 - fp32": name for name in ("accuracy", "NLL", "ECE")}
OTHERS = ("agreement", "seconds")


def compare(root: Path, given: argparse.Namespace) -> bool:
    """Train, export and print. True, because there is nothing to expect."""
    machine = provenance(())["hardware"]
    print(f"{machine['cpu']}, {machine['cpu_cores']} cores, {machine['threads']} threads, seeds 0-{given.seeds - 1}, test\n")
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(given.seeds):
        for arm, words in ARMS.items():
            shared = [*BASES[given.base], *SHARED, f"seed={seed}", f"outputs={root}"]
            found[arm].append(one(root, f"{arm}-{seed}", [*shared, *words, *given.words]))
            print(f"{arm} {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in found[arm][-1].items()), flush=True)
    print(f"\n| | {' | '.join(ARMS)} | selected - after | qad - after |\n{'|---' * (len(ARMS) + 3)}|")
    for name in (*NUMBERS, *LOSSES, *OTHERS):
        values = {arm: [numbers[name] for numbers in runs] for arm, runs in found.items()}
        cells = [f"{statistics.mean(of):.4f} ± {statistics.stdev(of):.4f}" for of in values.values()]
        cells += [difference(values[arm], values["after"]) for arm in ("selected", "qad")]
        print(f"| {name} | {' | '.join(cells)} |")
    return True


def one(root: Path, name: str, words: list[str]) -> dict[str, float]:
    """Train and export one student; return the numbers of its int8 file."""
    place = root / name
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        seconds = kdx.train(*words, folder=place, quiet=True).metrics["seconds"]
        options = yaml.safe_load((conf_dir() / "export.yaml").read_text(encoding="utf-8"))
        shipped: dict[str, Any] = {key: value for key, value in options.items() if key not in ("defaults", "hydra")}
        to = folder.export(requested({**shipped, "run": str(place), "format": "onnx_int8", "to": str(place / "export")}))
    report = json.loads((to / "export.json").read_text(encoding="utf-8"))["formats"]["onnx_int8"]["rounding"]
    before, after = report["fp32"]["metrics"], report["int8"]["metrics"]
    numbers = {name: after[key] for name, key in NUMBERS.items()}
    numbers |= {name: after[NUMBERS[what]] - before[NUMBERS[what]] for name, what in LOSSES.items()}
    return {**numbers, "agreement": report["agreement"]["test"], "seconds": seconds}


def difference(one: list[float], other: list[float]) -> str:
    """Return the mean of paired differences with Student's 95 % interval."""
    pairs = [a - b for a, b in zip(one, other, strict=True)]
    interval = student_interval(pairs)
    return f"{statistics.mean(pairs):+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="digits", choices=list(BASES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--words", nargs="*", default=[], help="added to each command")
    run(parser, compare)
