"""How fast is a training step beside a bare PyTorch loop on the same work? Prints a table of ratios, and writes it as JSON.

Each step of a run is followed by one of the bare loop, so a machine that drifts slows down both. The bare loop has the plain
networks, one batch that it never loads, and neither crops, logs nor validates.

python scripts/checks/steps.py
python scripts/checks/steps.py digits resnet56 --words speed=exact --to steps.json
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import kdx

COMMON = (
    *("logger=none", "baselines=[]", "preflight=off", "test=false", "callbacks.last.seconds=3600"),
    *("trainer.limit_val_batches=1", "teacher.recipe.trainer.max_epochs=1", "teacher.recipe.trainer.limit_train_batches=2"),
)
PAIRED = (
    *("experiment=none", "losses=[kl]", "temperature=constant", "temperature.value=4", "optimizer=sgd"),
    "trainer.max_epochs=1",
)
CIFAR = (
    *(*PAIRED, "data=glyphs", "data.source.size=32", "data.source.train=2560", "data.batch_size=64"),
    *("resolution.teacher=32", "resolution.student=32", "data.source.val=64", "data.source.test=64"),
)
SETTINGS: dict[str, list[str]] = {
    "digits": ["experiment=cqkd_digits", "data=digits", "trainer.max_epochs=15"],
    "funmatch": ["experiment=funmatch_digits", "trainer.max_epochs=15"],
    "resnet56": [*CIFAR, "network@student=cifar_resnet20", "teacher.network.architecture=cifar_resnet56"],
    "wrn": [*CIFAR, "student.architecture=cifar_wrn_16_2", "teacher.network.architecture=cifar_wrn_40_2"],
    "resnet34": [
        *(*PAIRED, "data=imagefolder", "student.architecture=resnet18", "teacher.network.architecture=resnet34"),
        *("resolution.teacher=224", "resolution.student=224", "data.batch_size=16", "data.num_workers=1"),
    ],
}


def jpegs(root: Path) -> None:
    """Write 4 classes of JPEG files of 500 x 375 px."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 320), ("val", 16)):
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
            file = root / split / f"class{i % 4}" / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse.save(file, quality=90)


def measure(name: str, words: list[str], root: Path) -> dict[str, object]:
    """Return what a run measured beside the bare loop."""
    file, folder = root / f"{name}.json", root / name
    own = [f"data.root={root}/images"] if name == "resnet34" else []
    beside = f"+callbacks.bare={{_target_: kdx.training.callbacks.bare_loop.BareLoop, file: '{file}'}}"
    kdx.train(*SETTINGS[name], *COMMON, *own, *words, beside, f"outputs={root}/outputs", folder=folder, quiet=True)
    found: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Measure the settings that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=list(SETTINGS), metavar="SETTING", help=", ".join(SETTINGS))
    parser.add_argument("--words", nargs="*", default=[], help="further words of kdx-train, for all settings")
    parser.add_argument("--to", type=Path, help="file for the numbers")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jpegs(Path(folder) / "images")
        found = {name: measure(name, given.words, Path(folder)) for name in given.settings}
    table = Table("setting", "kdx", "bare", "bare / kdx", "quartiles", "data", "forward", "backward", "update", "steps")
    for name, one in found.items():
        low, high = one["quartiles"]
        shares = [f"{share:.0%}" for share in one["shares"].values()]
        times = [f"{one[key]:.1f} ms" for key in ("kdx_ms", "bare_ms")]
        table.add_row(name, *times, f"{one['ratio']:.2f}", f"{low:.2f} to {high:.2f}", *shares, str(one["steps"]))
    Console(width=140).print(table)
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.processor()}
    if given.to is not None:
        given.to.write_text(json.dumps({"settings": found, "words": given.words, **machine}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
