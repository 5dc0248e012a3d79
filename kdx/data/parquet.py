"""Labeled images in parquet files, as on the Hugging Face hub; read by index from a copy, because parquet is read by groups."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdx.data.decoding import channels_of
from kdx.data.layouts import SAMPLE
from kdx.data.packed import PackedImages, Places
from kdx.data.parquet_columns import Columns, Features, choose, stated_in_schema
from kdx.data.source import Images, Source, SplitName
from kdx.run.files import remembered, replacing

log = logging.getLogger("kdx")

EXTRA = "parquet files require pyarrow: pip install kdx[parquet]"
BATCH = 64  # rows that are read at a time


class ParquetImages(PackedImages):
    """The images of one split, copied from parquet files and decoded at access."""

    def __init__(self, paths: Sequence[Path], found: Sequence[Places], channels: int, title: str) -> None:
        super().__init__(paths, found, channels, "delete data.source.cache, which is then written again")
        self.channels = channels
        sha = hashlib.sha256(title.encode())
        for column in (self.sizes, self.labels):
            sha.update(column.tobytes())
        self.fingerprint = f"parquet {title} {sha.hexdigest()}"


class Parquet(Source):
    """Images and labels in parquet files.

    Args:
        files: The files of each split.
        title: Names the data and their version, in messages and in the fingerprint.
        stated: The features of the columns, where the files do not state them.
        num_classes: At least the number of classes; None: that number.
        channels: 1 (gray), 3 (RGB), or None: 1 if a sample is all gray, else 3.
        image: The column of images; None to infer it.
        label: The column of labels, integers or text; None to infer it.
        cache: The folder of the copies that are read by index, about as large as the parquet files.
    """

    def __init__(
        self,
        files: Mapping[SplitName, Sequence[Path]],
        title: str,
        stated: Features,
        num_classes: int | None,
        channels: Literal[1, 3] | None,
        image: str | None,
        label: str | None,
        cache: Path,
    ) -> None:
        self.files, self.title, self._stated, self.cache = files, title, stated, cache
        self._num_classes, self._channels, self._image, self._label = num_classes, channels, image, label

    @functools.cached_property
    def columns(self) -> Columns:
        """The columns of images and labels. ValueError if they cannot be inferred."""
        first = next(iter(self.files.values()))[0]
        schema = _opened(first).schema_arrow
        return choose(schema, stated_in_schema(schema.metadata) or self._stated, self._image, self._label, self.title)

    @functools.cached_property
    def _values(self) -> dict[SplitName, list[list[Any]]]:
        """The label column of each file, as it is."""
        return {split: [_column(file, self.columns.label) for file in files] for split, files in self.files.items()}

    @functools.cached_property
    def names(self) -> Sequence[str] | None:  # type: ignore[override]  # known once it is read
        """As stated, else the sorted texts of the label column, else None."""
        if self.columns.names is not None:
            return self.columns.names
        texts = {value for parts in self._values.values() for part in parts for value in part if isinstance(value, str)}
        return sorted(texts) or None

    @functools.cached_property
    def num_classes(self) -> int:  # type: ignore[override]  # known once it is read
        """As given, else the number of names, else one more than the largest label."""
        if self._num_classes or self.names:
            return self._num_classes or len(self.names or ())
        return 1 + max(int(label.max(initial=0)) for labels in self._labels.values() for label in labels)

    @functools.cached_property
    def _labels(self) -> dict[SplitName, list[NDArray[np.int64]]]:
        """The labels of each file, of splits that have labels."""
        number = {name: index for index, name in enumerate(self.names or ())}
        found: dict[SplitName, list[NDArray[np.int64]]] = {}
        for split, parts in self._values.items():
            labels = [np.array([_label(value, number) for value in part], np.int64) for part in parts]
            without = sum(int((part < 0).sum()) for part in labels)
            total = sum(map(len, labels))
            if without == total and split != "train":
                continue
            if without:
                raise ValueError(
                    f"{self.title}: {without} of {total} rows of {split} have no label in the column {self.columns.label}: "
                    "choose another one with data.source.label, or use another data set"
                )
            found[split] = labels
        return found

    @functools.cached_property
    def channels(self) -> int:  # type: ignore[override]  # known once it is read
        """As given, else 1 if all images of a sample are gray, else 3."""
        if self._channels is not None:
            return self._channels
        images = next(iter(self._packed(3).values()))
        return channels_of(BytesIO(images.encoded(index)) for index in range(0, len(images), max(1, len(images) // SAMPLE)))

    def check(self) -> None:
        labels, names = self._labels, self.names
        if names is not None and len(names) > self.num_classes:
            raise ValueError(f"{self.title} has {len(names)} classes: set data.num_classes={len(names)}")
        if self.num_classes < 2:
            raise ValueError(f"Need at least 2 classes, found 1 in {self.title}: choose another column with data.source.label")
        assert labels

    def remarks(self) -> Sequence[str]:
        return [f"{split} of {self.title} has no labels, and is not used" for split in self.files if split not in self._labels]

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        return self._packed(self.channels)

    def _packed(self, channels: int) -> dict[SplitName, ParquetImages]:
        title = f"{self.title} {self.columns.image} {self.columns.label}"
        found: dict[SplitName, ParquetImages] = {}
        for split, labels in self._labels.items():
            copies = [copied(file, self.columns.content, self.cache) for file in self.files[split]]
            places = [
                Places(np.cumsum(sizes) - sizes, sizes, of_file) for (_, sizes), of_file in zip(copies, labels, strict=True)
            ]
            found[split] = ParquetImages([path for path, _ in copies], places, channels, title)
        return found


def _label(value: Any, number: Mapping[str, int]) -> int:
    return number[value] if isinstance(value, str) else -1 if value is None else int(value)


def _opened(file: Path) -> Any:
    """Return the parquet file. ValueError if it is none, or if the extra is missing."""
    try:
        from pyarrow import parquet  # type: ignore[import-untyped]  # it has no types
    except ImportError:
        raise ValueError(EXTRA) from None
    try:
        return parquet.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as parquet ({_first(error)}): delete it, and it is downloaded again") from None


def _column(file: Path, name: str) -> list[Any]:
    try:
        values: list[Any] = _opened(file).read(columns=[name]).column(name).to_pylist()
        return values
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file}: the column {name} cannot be read ({_first(error)}): use another data set") from None


def copied(file: Path, content: str, cache: Path) -> tuple[Path, NDArray[np.int64]]:
    """Return a file with the images of a parquet file, one after another, and their sizes in bytes.

    It is written to `cache` once, for a file of the same path, size and modification time. ValueError if that fails.
    """
    real = file.resolve()
    state = real.stat()
    name = hashlib.sha256(os.fsencode(f"{real} {state.st_size} {state.st_mtime_ns} {content}")).hexdigest()
    packed = cache / f"{name}.images"

    def write() -> NDArray[np.int64]:
        log.info("Copying the images of %s to %s", file.name, cache)
        sizes: list[int] = []
        with replacing(packed) as draft, draft.open("wb") as stream:
            for encoded in _contents(file, content):
                sizes.append(stream.write(encoded))
        return np.array(sizes, np.int64)

    def read(stored: Path) -> NDArray[np.int64]:
        sizes: NDArray[np.int64] = np.load(stored, allow_pickle=False)
        if packed.stat().st_size != sizes.sum():
            raise ValueError
        return sizes

    try:
        return packed, remembered(cache / f"{name}.npy", write, read, _save)
    except OSError as error:
        raise ValueError(f"Cannot write to {cache} ({error.strerror}): choose data.source.cache=FOLDER") from None


def _save(sizes: NDArray[np.int64], path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, sizes)


def _contents(file: Path, content: str) -> Iterator[bytes]:
    name, _, inner = content.partition(".")
    some = False
    try:
        for batch in _opened(file).iter_batches(batch_size=BATCH, columns=[content]):
            column = batch.column(name).field(inner) if inner else batch.column(name)
            for value in column.to_pylist():
                some = some or value is not None
                yield value or b""
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({_first(error)}): delete it, and it is downloaded again") from None
    if not some:
        raise ValueError(f"{file}: the column {name} has no images, only paths of files: use another data set")


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
