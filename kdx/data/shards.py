"""An image data set in a few large files, read by index from a local disk, S3 or HTTP.

    root/index.json         what the data set is: splits, num_classes, channels, flip, mean, std, labeled splits, names
    root/train/index.json   labels, encoded sizes, and the shards: file, images, bytes, sha256
    root/train/00000.shard  PNG or JPEG files, one after another

`Shards` reads it; `kdx-prepare` writes it from any source (`kdx.data.shard_writer`).
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from kdx.data.remote import download, read, remote
from kdx.data.source import SPLITS, BadImageError, Images, Source, SplitName

VERSION = 1
INDEX = "index.json"
LAYOUT = "ROOT/index.json, ROOT/train/index.json, ROOT/train/00000.shard, ..."


class Shards(Source):
    """A data set that `kdx-prepare` wrote to `root`: a folder, s3://bucket/prefix or https://host/path.

    What is remote is downloaded shard by shard, when it is first needed, into `cache`, and is never downloaded twice.
    """

    def __init__(self, root: str | None, cache: str = "~/.cache/kdx/shards") -> None:
        self.root, self.cache = root, cache

    def url(self, *parts: str) -> str:
        """The address of something below `root`. ValueError if there is no root."""
        if self.root is None:
            raise ValueError(f"Missing required option: data.root=FOLDER, s3://... or https://... Expected layout: {LAYOUT}")
        root = self.root.rstrip("/")
        return "/".join([root if remote(root) else str(Path(root).expanduser()), *parts])

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """`root/index.json`. ValueError says what is wrong with it."""
        return _index(self.url(INDEX))

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]  # known once it is read
        return self.about["num_classes"]

    @property
    def names(self) -> list[str] | None:  # type: ignore[override]  # known once it is read
        return self.about.get("names")

    @property
    def train_labels(self) -> bool:  # type: ignore[override]  # known once it is read
        return self.about["train_labels"]

    @property
    def labels(self) -> bool:  # type: ignore[override]  # known once it is read
        return self.about["labels"]

    @property
    def channels(self) -> int:  # type: ignore[override]  # known once it is read
        return self.about["channels"]

    @property
    def flip(self) -> bool:  # type: ignore[override]  # known once it is read
        return self.about["flip"]

    @property
    def mean(self) -> tuple[float, ...]:  # type: ignore[override]  # known once it is read
        return tuple(self.about["mean"])

    @property
    def std(self) -> tuple[float, ...]:  # type: ignore[override]  # known once it is read
        return tuple(self.about["std"])

    def check(self) -> None:
        _ = self.about

    def splits(self) -> Mapping[SplitName, Images]:
        return {name: self._split(name) for name in SPLITS if name in self.about["splits"]}

    def _split(self, name: SplitName) -> ShardImages:
        where = self.url(name)
        images = ShardImages(where, Path(self.cache).expanduser(), _index(f"{where}/{INDEX}"))
        classes = self.about["num_classes"]
        if images.labels is not None and classes is not None and not (images.labels < classes).all():
            raise ValueError(f"{where}/{INDEX}: label {images.labels.max()}, but there are {classes} classes: {REWRITE}")
        return images


class ShardImages(Images):
    """One split at `where`, by its index."""

    def __init__(self, where: str, cache: Path, index: dict[str, Any]) -> None:
        self.where, self.cache, self.shards = where, cache, index["shards"]
        sizes, counts = np.array(index["sizes"], np.int64), np.array([shard["images"] for shard in self.shards], np.int64)
        self.labels = None if index["labels"] is None else np.array(index["labels"], np.int64)
        if counts.sum() != len(sizes) or (self.labels is not None and len(self.labels) != len(sizes)):
            raise ValueError(f"{where}/{INDEX}: the numbers of images, sizes and labels differ: {REWRITE}")
        self.shard = np.repeat(np.arange(len(counts)), counts)
        self.fingerprint = " ".join(shard["sha256"] for shard in self.shards)
        starts = np.cumsum(sizes) - sizes
        first = (np.cumsum(counts) - counts)[self.shard]
        self.sizes, self.offsets = sizes, starts - starts[first]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        shard = self.shards[self.shard[index]]
        path = self.obtain(shard)
        with path.open("rb") as file:
            file.seek(self.offsets[index])
            encoded = file.read(self.sizes[index])
        try:
            return decoded(encoded)
        except Exception as error:
            raise BadImageError(f"{self.where}/{shard['file']}: image {index} cannot be decoded ({error}): {REWRITE}") from None

    def obtain(self, shard: dict[str, Any]) -> Path:
        """The shard's file on this machine, downloaded if need be. ValueError names the shard and the remedy."""
        url = f"{self.where}/{shard['file']}"
        if not remote(url):
            size = _size(Path(url))
            if size != shard["bytes"]:
                state = "is missing" if size is None else f"has {size} bytes instead of {shard['bytes']}"
                raise ValueError(f"{url}, listed in {self.where}/{INDEX}, {state}: {REWRITE}")
            return Path(url)
        path = self.cache / f"{shard['sha256']}.shard"
        if _size(path) != shard["bytes"]:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_suffix(".lock")):
                    if _size(path) != shard["bytes"]:
                        download(url, path, shard["sha256"], REWRITE)
            except OSError as error:
                raise ValueError(f"{url} cannot be kept in {path.parent} ({error}): choose another data.source.cache") from None
        return path


REWRITE = "write or copy the data set again (kdx-prepare data=... to=ROOT)"


def decoded(encoded: bytes) -> NDArray[np.uint8]:
    """A PNG or JPEG file as uint8 [C,H,W], one channel or three."""
    with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"mode {image.mode} instead of L or RGB")
        pixels = np.array(image)  # a copy, because torch needs a writable array
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _index(url: str) -> dict[str, Any]:
    content = read(url, f"expected layout: {LAYOUT}. Correct data.root, or {REWRITE}", REWRITE)
    try:
        index: dict[str, Any] = json.loads(content)
        version = index["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{url} is not an index of shards ({error!r}): {REWRITE}") from None
    if version != VERSION:
        raise ValueError(f"{url} has version {version}, this kdx reads {VERSION}: {REWRITE}")
    return index


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
