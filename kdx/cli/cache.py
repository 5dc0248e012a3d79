"""kdx-cache: what the kept answers of teachers cost, list them, verify them, and delete those that are not needed."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.filesize import decimal as size

from kdx.cli import arguments
from kdx.cli.run_folders import FAILED, Parser, leave
from kdx.config.errors import nearest
from kdx.run.durations import duration
from kdx.teachers.kept import kept_in, remove, surplus

PURPOSE = "Estimate, list, verify and delete kept answers of teachers."
EXAMPLES = """examples:
  kdx-cache estimate experiment=funmatch_digits    bytes and time, and from which run on teacher_cache pays
  kdx-cache ls                                     each key: teacher, data, views, epochs, bytes, last use
  kdx-cache verify outputs/answers                 checksums; --delete deletes damaged files
  kdx-cache prune keep=10GB older=30d              delete what was not used for long, and beyond a size; --dry-run only tells

Words of estimate are those of kdx-train; the others take a FOLDER, outputs/answers by default. What is deleted, or damaged,
is answered again by the teacher when a run needs it.
"""
ACTIONS = ("estimate", "ls", "verify", "prune")
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
AGES = {"h": 3600.0, "d": 86400.0}


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run kdx-cache."""
    leave(_main, words)


def _main(given: Sequence[str] | None) -> None:
    words = list(sys.argv[1:] if given is None else given)
    if words[:1] == ["estimate"] and not {"-h", "--help"} & set(words):
        estimate(words[1:])
        return
    parser = Parser(
        prog="kdx-cache", description=PURPOSE, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("words", nargs="*", metavar="WORD", help="FOLDER, keep=SIZE, older=TIME, or words of kdx-train")
    parser.add_argument("--delete", action="store_true", help="of verify: delete damaged files")
    parser.add_argument("--dry-run", action="store_true", help="of prune: delete nothing")
    options = parser.parse_args(words)
    folders = [Path(word) for word in options.words if "=" not in word]
    limits = dict(word.split("=", 1) for word in options.words if "=" in word)
    folder = folders[0] if folders else Path(os.environ.get("KDX_OUTPUTS", "outputs")) / "answers"
    if folders and not folder.is_dir():
        raise ValueError(f"No answers found in {folder}; expected a folder of teacher_cache, such as outputs/answers")
    if options.action == "prune":
        prune(folder, limits, options.dry_run)
    elif limits:
        raise ValueError(f"Unknown key '{next(iter(limits))}' of kdx-cache {options.action}; expected FOLDER")
    elif options.action == "ls":
        ls(folder)
    else:
        verify(folder, options.delete)


def estimate(words: Sequence[str]) -> None:
    """Print what keeping the answers of `kdx-train WORDS` costs and saves."""
    from kdx.cli.compose import compose_train, opened
    from kdx.config.check import check

    parsed = arguments.parse(words)
    with opened(parsed):
        config = check(compose_train(parsed.overrides))
    from kdx.experiment import build
    from kdx.experiment.answer_costs import estimate as measured

    costs = measured(build.parts(config))
    members = f" x {costs.members} members" if costs.members > 1 else ""
    shape = f"{costs.images:,} images{members} x {costs.num_classes:,} classes x {costs.bits} bits"
    whole = size(costs.bytes_per_epoch * costs.distinct)
    print(f"{size(costs.bytes_per_epoch)} per epoch: {shape}")
    print(f"{whole} in all: {costs.distinct} of {costs.epochs} epochs have views of their own")
    print(f"per epoch, the teacher takes {costs.teacher:.3g} s; to keep {costs.keep:.2g} s, to read {costs.read:.2g} s")
    if costs.pays_from is None:
        print("teacher_cache does not pay: reading takes longer than the teacher")
    else:
        print(f"teacher_cache pays from {costs.pays_from} run{'s' if costs.pays_from > 1 else ''} on")


def ls(folder: Path) -> None:
    """Print a table of the kept answers, those used last first."""
    from rich.console import Console
    from rich.table import Table

    found = kept_in(folder)
    if not found:
        print(f"No answers are kept in {folder} yet: runs with teacher_cache=auto keep them there")
        return
    table = Table(title=f"{folder}: {len(found)} keys, {size(sum(kept.size for kept in found))}", title_justify="left")
    for title in ("key", "teacher", "data, images", "views", "files", "bits", "bytes", "used"):
        table.add_column(title, justify="right" if title in ("files", "bytes") else "left", overflow="fold")
    for kept in found:
        ago = f"{duration(max(time.time() - kept.used, 0))} ago{', in use' if kept.in_use else ''}"
        row = kept.folder.name, kept.teacher, kept.images, kept.views, str(len(kept.files)), kept.bits, size(kept.size), ago
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def verify(folder: Path, delete: bool) -> None:
    """Print the damaged files; exit with status 1 if there are any that are not deleted."""
    from kdx.teachers.answers import sound_table

    files = [file for kept in kept_in(folder) for file in kept.files]
    damaged = [file for file in files if sound_table(file) is None]
    for file in damaged:
        print(f"{file}: damaged{', deleted' if delete else ''}")
        if delete:
            file.unlink(missing_ok=True)
    print(f"{len(files) - len(damaged)} of {len(files)} files are sound")
    if damaged and not delete:
        print("kdx: --delete deletes the damaged files; a run would do the same when it meets them", file=sys.stderr)
        sys.exit(FAILED)


def prune(folder: Path, limits: dict[str, str], dry: bool) -> None:
    """Delete what exceeds the limits, and print what was freed."""
    for name in limits:
        if name not in ("keep", "older"):
            hint = nearest(name, ["keep", "older"])
            raise ValueError(f"Unknown key '{name}' of kdx-cache prune.{hint} Available: keep=SIZE, older=TIME")
    if not limits:
        raise ValueError("kdx-cache prune needs a limit: keep=10GB (the most to keep) or older=30d (since the last use)")
    keep = int(_number("keep", limits["keep"], UNITS, "10GB")) if "keep" in limits else None
    older = _number("older", limits["older"], AGES, "30d") if "older" in limits else None
    found = kept_in(folder)
    gone = surplus(found, keep, older)
    for kept in gone:
        if not dry:
            remove(kept)
        print(f"{kept.folder}: {size(kept.size)}, {kept.teacher}")
    freed = sum(kept.size for kept in gone)
    left = sum(kept.size for kept in found) - freed
    used = sum(kept.in_use for kept in found)
    held = f"; {used} in use stay" if used else ""
    print(f"{'would free' if dry else 'freed'} {size(freed)}, {size(left)} are left{held}")


def _number(name: str, text: str, units: dict[str, float], example: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]+)", text)
    if match is None or match[2] not in units:
        raise ValueError(f"Invalid {name}={text}; expected a number with one of {', '.join(units)}, e.g. {name}={example}")
    return float(match[1]) * units[match[2]]


if __name__ == "__main__":
    main()
