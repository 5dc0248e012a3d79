"""An image data set in a few large files, read by index from a local disk, S3 or HTTP.

    root/index.json         metadata: splits, num_classes, channels, flip, mean, std, labeled splits, names
    root/train/index.json   labels, encoded sizes, and the shards: file, images, bytes, sha256
    root/train/00000.shard  PNG or JPEG files, one after another

`Shards` reads it; `kdx-prepare` writes it from any source (`kdx.data.shard_writer`).
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from kdx.data.decoding import WHOLE, opened
from kdx.data.remote import OTHER_CONTENT, download, read, remote
from kdx.data.source import SPLITS, BadImageError, Decoding, Images, Source, SplitName

VERSION = 1
INDEX = "index.json"
LAYOUT = "ROOT/index.json, ROOT/train/index.json, ROOT/train/00000.shard, ..."


class Shards(Source):
    """A data set that `kdx-prepare` wrote to `root`: a folder, s3://bucket/prefix or https://host/path.

    A remote shard is downloaded into `cache` when it is first read, and is not downloaded again. The SHA-256 of each shard is
    verified when it is first read; `cache` remembers this for files of the same path, size and modification time.
    """

    def __init__(self, root: str | None, cache: str = "~/.cache/kdx/shards") -> None:
        self.root, self.cache = root, cache

    def url(self, *parts: str) -> str:
        """Return the path or URL of `parts` below `root`. ValueError if `root` is None."""
        if self.root is None:
            raise ValueError(f"Missing required option: data.root=FOLDER, s3://... or https://... Expected layout: {LAYOUT}")
        root = self.root.rstrip("/")
        return "/".join([root if remote(root) else str(Path(root).expanduser()), *parts])

    @functools.cached_property
    def about(self) -> dict[str, Any]:
        """The content of `root/index.json`. ValueError if it is missing or invalid."""
        return _index(self.url(INDEX))

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]  # read from the index
        return self.about["num_classes"]

    @property
    def names(self) -> list[str] | None:  # type: ignore[override]  # read from the index
        return self.about.get("names")

    @property
    def train_labels(self) -> bool:  # type: ignore[override]  # read from the index
        return self.about["train_labels"]

    @property
    def labels(self) -> bool:  # type: ignore[override]  # read from the index
        return self.about["labels"]

    @property
    def channels(self) -> int:  # type: ignore[override]  # read from the index
        return self.about["channels"]

    @property
    def flip(self) -> bool:  # type: ignore[override]  # read from the index
        return self.about["flip"]

    @property
    def mean(self) -> tuple[float, ...]:  # type: ignore[override]  # read from the index
        return tuple(self.about["mean"])

    @property
    def std(self) -> tuple[float, ...]:  # type: ignore[override]  # read from the index
        return tuple(self.about["std"])

    def check(self) -> None:
        _ = self.about

    def splits(self) -> Mapping[SplitName, Images]:
        return {name: self._split(name) for name in SPLITS if name in self.about["splits"]}

    def _split(self, name: SplitName) -> ShardImages:
        url = self.url(name)
        images = ShardImages(url, Path(self.cache).expanduser(), _index(f"{url}/{INDEX}"))
        classes = self.about["num_classes"]
        if images.labels is not None and classes is not None and not (images.labels < classes).all():
            raise ValueError(f"{url}/{INDEX}: label {images.labels.max()} out of range for {classes} classes: {REWRITE}")
        return images


class ShardImages(Images):
    """The images of one split in shards at `url`, a folder or a remote address."""

    def __init__(self, url: str, cache: Path, index: dict[str, Any]) -> None:
        self.url, self.cache, self.shards = url, cache, index["shards"]
        self.verified: set[tuple[str, int]] = set()  # shards with their modification times
        for shard in self.shards:
            _check_names(shard, f"{url}/{INDEX}")
        sizes, counts = np.array(index["sizes"], np.int64), np.array([shard["images"] for shard in self.shards], np.int64)
        self.labels = None if index["labels"] is None else np.array(index["labels"], np.int64)
        if (sizes < 0).any() or counts.sum() != len(sizes) or (self.labels is not None and len(self.labels) != len(sizes)):
            raise ValueError(f"{url}/{INDEX}: the numbers of images, sizes and labels differ: {REWRITE}")
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
            return decoded(encoded, self.decoding)
        except Exception as error:
            raise BadImageError(f"Cannot decode image {index} of {self.url}/{shard['file']} ({error}): {REWRITE}") from None

    def obtain(self, shard: dict[str, Any]) -> Path:
        """Return the local, verified file of a shard, downloaded if necessary. ValueError, with the remedy, if that fails."""
        url = f"{self.url}/{shard['file']}"
        if not remote(url):
            size = _size(Path(url))
            if size != shard["bytes"]:
                state = "is missing" if size is None else f"has {size} bytes instead of {shard['bytes']}"
                raise ValueError(f"{url}, listed in {self.url}/{INDEX}, {state}: {REWRITE}")
            if not Path(url).resolve().is_relative_to(Path(self.url).parent.resolve()):
                raise ValueError(f"{url} is a link to a file outside of {Path(self.url).parent}: copy that file to its place")
            self._verify(Path(url), shard)
            return Path(url)
        path = self.cache / f"{shard['sha256']}.shard"
        if _size(path) != shard["bytes"]:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_suffix(".lock")):
                    if _size(path) != shard["bytes"]:
                        download(url, path, shard["sha256"], REWRITE)
            except OSError as error:
                raise ValueError(f"Cannot store {url} in {path.parent} ({error}): choose another data.source.cache") from None
        self._verify(path, shard)
        return path

    def _verify(self, path: Path, shard: dict[str, Any]) -> None:
        """Raise ValueError if the file's SHA-256 is not the one in the index, unless `cache` has a mark that it is."""
        modified = path.stat().st_mtime_ns
        if (shard["file"], modified) in self.verified:
            return
        state = f"{path.absolute()} {shard['sha256']} {shard['bytes']} {modified}"
        mark = self.cache / "verified" / hashlib.sha256(os.fsencode(state)).hexdigest()
        if not mark.exists():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                    raise ValueError(f"{path}: {OTHER_CONTENT}: {REWRITE if not remote(self.url) else 'remove it'}")
            try:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
            except OSError:  # the next process verifies it again
                pass
        self.verified.add((shard["file"], modified))


REWRITE = "write or copy the data set again (kdx-prepare data=... to=ROOT)"


def decoded(encoded: bytes, how: Decoding = WHOLE) -> NDArray[np.uint8]:
    """Return the pixels of a PNG or JPEG file, uint8 [C,H,W] with one or three channels. ValueError for other files."""
    with opened(io.BytesIO(encoded), how, ("PNG", "JPEG")) as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"invalid mode {image.mode}, expected L or RGB")
        pixels = np.array(image)  # a copy, because torch needs a writable array
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_names(shard: dict[str, Any], index: str) -> None:
    """Raise ValueError unless the shard's file is a name in its folder, and its SHA-256, which names a file, is one."""
    file, digest = str(shard["file"]), str(shard["sha256"])
    if re.fullmatch(r"[\w-][\w.-]*", file) is None or re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        raise ValueError(f"{index} names the shard '{file}' with SHA-256 '{digest}'; expected a file in its folder: {REWRITE}")


def _index(url: str) -> dict[str, Any]:
    content = read(url, f"expected layout: {LAYOUT}. Correct data.root, or {REWRITE}", REWRITE)
    try:
        index: dict[str, Any] = json.loads(content)
        version = index["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{url} is not an index of shards ({error!r}): {REWRITE}") from None
    if version != VERSION:
        raise ValueError(f"{url} has version {version}, expected {VERSION}: {REWRITE}")
    return index


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
