"""kdx-predict: what a student says of images: class, calibrated confidence and entropy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kdx.cli.run_folders import FAILED, Parser, leave

if TYPE_CHECKING:
    from kdx.evaluation.predicting import Answer
    from kdx.evaluation.predictor import Predictor

PURPOSE = "Tell what a student says of images: class, calibrated confidence and entropy."
EXAMPLES = """examples:
  kdx-predict run=outputs/cqkd_digits/TIME photo.jpg     the student of a finished run
  kdx-predict file=export/student.onnx FOLDER --json     an exported file, a JSON line per image
  kdx-predict run=RUN FOLDER --teacher --top 3           its teacher, and three classes

Images are cropped, resized and normalized as in the evaluation of the run. Confidence and entropy are those at the temperature
that calibrates the student on val; --raw leaves it out.
"""
KEYS = ("run", "file")
USAGE = "kdx-predict run=FOLDER|file=FILE IMAGE [IMAGE ...] [--top K] [--teacher] [--raw] [--json]"


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run kdx-predict."""
    leave(_predict, words)


def _predict(given: Sequence[str] | None) -> None:
    parser = Parser(
        prog="kdx-predict",
        usage=USAGE,
        description=PURPOSE,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="+", metavar="IMAGE", help="images or folders of them; and one network, run= or file=")
    parser.add_argument("--top", type=int, default=1, metavar="K", help="classes to name; default: 1")
    parser.add_argument("--teacher", action="store_true", help="of run=: the teacher instead of the student")
    parser.add_argument("--raw", action="store_true", help="probabilities at T = 1")
    parser.add_argument("--json", action="store_true", help="a JSON line per image")
    options = parser.parse_args(given)
    keys = {key: [word.partition("=")[2] for word in options.words if word.startswith(f"{key}=")] for key in KEYS}
    images = [word for word in options.words if not word.startswith(tuple(f"{key}=" for key in KEYS))]
    if sum(map(len, keys.values())) != 1:
        raise ValueError("give one network: run=FOLDER of a finished run, or file=FILE of an export")
    if keys["run"] and not (Path(keys["run"][0]) / "config.yaml").is_file():
        raise ValueError(f"run={keys['run'][0]} is not the folder of a run: it has no config.yaml")
    if not images:
        raise ValueError("give image files, or folders of them")
    if options.top < 1:
        raise ValueError(f"--top {options.top}: expected at least 1")
    if options.teacher and keys["file"]:
        raise ValueError("--teacher needs run=FOLDER: a file has one network")
    from kdx.evaluation.predicting import answers, images_in

    files = images_in(images)
    predictor, temperature = _of_run(keys["run"][0], options.teacher) if keys["run"] else _of_file(keys["file"][0])
    failed: list[str] = []
    found = answers(predictor, 1.0 if options.raw else temperature, files, options.top, failed.append)
    if options.json:
        for answer in found:
            print(json.dumps(answer.plain(), ensure_ascii=False))
    else:
        _show(found, temperature, options.raw)
    for message in failed:
        print(f"kdx: {message}", file=sys.stderr)
    if failed:
        sys.exit(FAILED)


def _of_run(run: str, teacher: bool) -> tuple[Predictor, float]:
    from kdx.config.check import load
    from kdx.evaluation.predicting import fitted_temperature
    from kdx.evaluation.predictor import student_of, teacher_of
    from kdx.run.folder import RunFolder

    folder = RunFolder(Path(run))
    config = load(folder.path / "config.yaml")
    if teacher:
        return teacher_of(config, folder), 1.0  # it divides by its own temperature
    return student_of(config, folder), fitted_temperature(folder)


def _of_file(file: str) -> tuple[Predictor, float]:
    from kdx.evaluation.predictor import of_file

    return of_file(Path(file))


def _show(found: Iterator[Answer], temperature: float, raw: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(caption=f"T = {1.0 if raw else temperature:.4g}", caption_justify="left")
    for title in ("image", "class", "confidence", "entropy", "next"):
        table.add_column(title, justify="right" if title in ("confidence", "entropy") else "left", overflow="fold")
    for answer in found:
        others = zip(answer.classes[1:], answer.probabilities[1:], strict=True)
        rest = ", ".join(f"{name} {probability:.3f}" for name, probability in others)
        table.add_row(answer.file, answer.classes[0], f"{answer.probabilities[0]:.4f}", f"{answer.entropy:.4f}", rest)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    main()
