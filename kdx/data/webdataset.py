"""WebDataset: images in tar files, each beside its label in a file of the same name, read by index."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from kdx.data.layouts import existing
from kdx.data.packed import PackedImages, Places
from kdx.data.source import SPLITS, Images, Source, SplitName
from kdx.ranges import Count, validated
from kdx.run.files import remembered

LAYOUT = "ROOT/train-000000.tar, ... and val-000000.tar, ..., or ROOT/train/*.tar, with 00012.jpg and 00012.cls for each image"
ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "ppm")
SPLIT = re.compile(r"(?:^|[-_.])(train|training|val|valid|validation|test)(?=[-_.\d{]|$)", re.IGNORECASE)
NAMES = "classnames.txt"


@validated
class WebDataset(Source):
    """The tar files below `root`, a local folder; a file or a folder is named after its split.

    The tars are searched once for the places of their images; `cache` remembers them for files of the same path, size and
    modification time. Class names are the lines of ROOT/classnames.txt, if there is one.
    """

    def __init__(self, root: str | None, num_classes: Count | None = None, cache: str = "~/.cache/kdx/webdataset") -> None:
        self.root, self._num_classes, self.cache = root, num_classes, cache

    @functools.cached_property
    def num_classes(self) -> int:  # type: ignore[override]  # known once it is read
        """As given, else the number of class names, else one more than the largest label."""
        if self._num_classes or self.names:
            return self._num_classes or len(self.names or ())
        return 1 + max(int(images.labels.max()) for images in self._images.values() if images.labels is not None)

    @functools.cached_property
    def names(self) -> Sequence[str] | None:  # type: ignore[override]  # read from disk
        """The lines of classnames.txt; None without that file."""
        file = existing(self.root, LAYOUT, "or use data=shards for what kdx-prepare wrote") / NAMES
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else None

    def check(self) -> None:
        self._tars()

    def splits(self) -> Mapping[SplitName, Images]:
        return self._images

    @functools.cached_property
    def _images(self) -> dict[SplitName, TarImages]:
        cache = Path(self.cache).expanduser()
        return {split: TarImages(paths, [places(path, cache) for path in paths]) for split, paths in self._tars().items()}

    def _tars(self) -> dict[SplitName, list[Path]]:
        """Return the tar files of each split, sorted by name. ValueError if there are none, or if one is of no split."""
        root = existing(self.root, LAYOUT, "or use data=shards for what kdx-prepare wrote")
        found: dict[SplitName, list[Path]] = {}
        for path in sorted((*root.glob("*.tar"), *root.glob("*/*.tar"))):
            told = SPLIT.findall(path.name) or SPLIT.findall(path.parent.name if path.parent != root else "")
            if not told:
                raise ValueError(f"{path} does not say which split it is of. Expected layout: {LAYOUT}. Rename or remove it")
            found.setdefault(_split(told[-1]), []).append(path)
        if not found:
            raise ValueError(f"{root} contains no tar file. Expected layout: {LAYOUT}. Correct data.root")
        return {split: found[split] for split in SPLITS if split in found}


def _split(word: str) -> SplitName:
    return next(split for split in SPLITS if word.lower().startswith(split))


def places(path: Path, cache: Path) -> Places:
    """Return where the images of a tar file are, from `cache` if it is known there. ValueError if it is no such tar."""
    state = path.stat()
    name = hashlib.sha256(os.fsencode(f"{path.absolute()} {state.st_size} {state.st_mtime_ns}")).hexdigest()
    return remembered(cache / f"{name}.npz", lambda: search(path), _read, _write)


def _read(file: Path) -> Places:
    with np.load(file, allow_pickle=False) as arrays:
        return Places(**{item.name: arrays[item.name] for item in fields(Places)})


def _write(found: Places, file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, **vars(found))


def search(path: Path) -> Places:
    """Return where the images of a tar file are, by its headers. ValueError if the file is no tar, or an image has no label."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, ending = member.name.rpartition("/")[2].partition(".")
                key = f"{member.name.rpartition('/')[0]}/{key}"
                if member.isreg() and ending.lower() in ENDINGS:
                    images[key] = member.offset_data, member.size
                elif member.isreg() and ending.lower() == "cls":
                    content = tar.extractfile(member)
                    labels[key] = int(content.read(20)) if content is not None else -1
                tar.members = []  # type: ignore[attr-defined]  # documented; else it keeps all of them
    except (tarfile.TarError, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a WebDataset ({error}): copy it again, or remove it") from None
    without = next((key for key in images if key not in labels), None)
    if without is not None or not images:
        found = f"image {without} without {without}.cls" if without is not None else "no image"
        raise ValueError(f"{path} has {found}. Expected layout: {LAYOUT}")
    columns = np.array([(*place, labels[key]) for key, place in images.items()], np.int64)
    return Places(*(np.ascontiguousarray(column) for column in columns.T))


class TarImages(PackedImages):
    """The images of one split in tar files, decoded at access."""

    def __init__(self, paths: Sequence[Path], found: Sequence[Places]) -> None:
        super().__init__(paths, found, 3, "copy the tar again")
        counts = [len(one.labels) for one in found]
        sha = hashlib.sha256(" ".join(f"{path.name} {count}" for path, count in zip(paths, counts, strict=True)).encode())
        for column in (self.offsets, self.sizes, self.labels):
            sha.update(column.tobytes())
        self.fingerprint = f"webdataset {sha.hexdigest()}"
