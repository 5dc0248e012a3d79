"""Check of the image files of a data set before training: all damaged files at once, each folder only once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np

from kdx.data.cache import key
from kdx.data.decoding import ImageFiles, fault, header_fault
from kdx.data.source import Images, SplitName
from kdx.run.files import remembered_json

DECODED = 20_000  # of more files, only size and header are checked
HEADERS = 20_000  # of more files, only every so many-th
EVERY_S = 10.0  # seconds between two lines of progress
SHOWN = 20  # damaged files in a message


@dataclass
class Findings:
    """The damaged files, why each cannot be decoded, and how many files were checked and have colors."""

    images: int = 0
    checked: int = 0
    colored: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


def verify(splits: Mapping[SplitName, Images], folder: Path, say: Callable[[str], None]) -> Findings:
    """Return the findings in all image files of the splits. Splits of other images, such as arrays, are not checked.

    Args:
        splits: The splits of a data set.
        folder: Where the findings are stored, as FOLDER/KEY.json, by names, sizes and modification times of the files. If it
            cannot be written, files are checked each time.
        say: Receives lines of progress.
    """
    total = Findings()
    readers = [reader for images in splits.values() for reader, _ in images.origins(np.arange(len(images)))]
    for images in {id(reader): reader for reader in readers if isinstance(reader, ImageFiles)}.values():
        file = folder / f"{key(images, f'verified {images.decoding.max_pixels}')}.json"
        found = remembered_json(file, partial(_check, images, say), lambda stored: Findings(**stored), asdict)
        total.images, total.checked = total.images + found.images, total.checked + found.checked
        total.colored += found.colored if images.channels == 1 else 0
        total.damaged |= found.damaged
    return total


def listed(damaged: Mapping[str, str], images: int) -> str:
    """Return the number of damaged files and their names with reasons, at most `SHOWN`, as text."""
    files = [f"{path} ({reason})" for path, reason in sorted(damaged.items())]
    more = f", and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return f"{len(files)} of {images} images cannot be decoded: {', '.join(files[:SHOWN])}{more}"


def _check(images: ImageFiles, say: Callable[[str], None]) -> Findings:
    """Decode all files in threads; of many files, check all sizes, and the headers of some."""
    paths = [os.fsdecode(path) for path in images.paths]
    found = Findings(images=len(paths))
    look = fault
    if len(paths) > DECODED:
        look = header_fault
        found.damaged = {path: "the file is empty" for path in paths if _is_empty(path)}
        paths = paths[:: -(-len(paths) // HEADERS)]
        say(f"Checking the headers of {len(paths)} of {found.images} image files; data.verify=false omits it")
    found.checked = len(paths)
    began = reported = time.monotonic()
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for done, (path, (reason, colored)) in enumerate(
            zip(paths, pool.map(look, paths, repeat(images.decoding)), strict=True), 1
        ):
            found.colored += colored
            if reason is not None:
                found.damaged[path] = reason
            now = time.monotonic()
            if now - reported > EVERY_S:
                reported = now
                left = (now - began) / done * (len(paths) - done)
                say(f"Checked {done} of {len(paths)} image files, {left:.0f} s to go; data.verify=false omits it")
    return found


def _is_empty(path: str) -> bool:
    try:
        return os.path.getsize(path) == 0
    except OSError:  # reported when its header is read, or when it is decoded
        return False
