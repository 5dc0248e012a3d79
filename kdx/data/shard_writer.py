"""Writer of shard data sets, which `kdx.data.shards` reads."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdx.data.shards import INDEX, VERSION, decoded
from kdx.data.source import BadImageError, Images, Source, SplitName, Subset
from kdx.run.files import replacing

SHARD_BYTES = 32 * 2**20
EVERY_S = 10.0  # seconds between two lines of progress


def write_dataset(
    source: Source, splits: Mapping[SplitName, Images], root: Path, say: Callable[[str], None], skip_bad: bool = False
) -> None:
    """Write all splits as shards in `root`. `root/index.json` is written last, so that a partial data set is not readable.

    Args:
        source: The data set, whose metadata is written to the index.
        splits: The images to write, by split.
        root: The new folder.
        say: Receives lines of progress, such as `print`.
        skip_bad: Whether to skip images that cannot be decoded.

    Raises:
        ValueError: If `root` contains a data set or cannot be written.
        BadImageError: If an image cannot be decoded, unless `skip_bad`.
    """
    if (root / INDEX).exists():
        raise ValueError(f"{root / INDEX} already exists: remove {root}, or choose another folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"Cannot create {root} ({error}): choose another folder") from None
    for name, images in splits.items():
        write_shards(images, root / name, say, skip_bad)
    about = {
        "version": VERSION,
        "splits": list(splits),
        "num_classes": source.num_classes,
        "train_labels": source.train_labels,
        "labels": source.labels,
        "channels": source.channels,
        "flip": source.flip,
        "mean": list(source.mean),
        "std": list(source.std),
        "names": getattr(source, "names", None),
    }
    with replacing(root / INDEX) as draft:
        draft.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def write_shards(images: Images, folder: Path, say: Callable[[str], None], skip_bad: bool = False) -> None:
    """Write one split to `folder` atomically, replacing its content.

    JPEG and PNG files are copied if they decode to the same pixels; other images are written as PNG.

    Raises:
        BadImageError: If an image cannot be decoded. With `skip_bad`, it is skipped and reported instead.
        ValueError: If the folder cannot be written, for example if the disk is full.
    """
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        index = _fill(images, draft, say, folder.name, skip_bad)
        (draft / INDEX).write_text(json.dumps(index, separators=(",", ":")) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    except OSError as error:
        raise ValueError(f"Cannot write {folder} ({error}): free disk space, or choose another folder") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    total = sum(shard["bytes"] for shard in index["shards"])
    say(f"{folder.name}: {len(index['sizes'])} images, {total / 1e6:.1f} MB in {len(index['shards'])} shards")


def _fill(images: Images, draft: Path, say: Callable[[str], None], name: str, skip_bad: bool) -> dict[str, Any]:
    shards: list[dict[str, Any]] = []
    written: list[int] = []
    sizes: list[int] = []
    pending: list[bytes] = []  # images of the next shard

    def flush() -> None:
        content = b"".join(pending)
        file = f"{len(shards):05}.shard"
        (draft / file).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        shards.append({"file": file, "images": len(pending), "bytes": len(content), "sha256": digest})
        pending.clear()

    start = reported = time.monotonic()
    pending_bytes = 0
    for i in range(len(images)):
        try:
            encoded = _encoded(images, i)
        except BadImageError as error:
            if not skip_bad:
                raise
            say(f"skipped: {error}")
            continue
        if pending and pending_bytes + len(encoded) > SHARD_BYTES:
            flush()
            pending_bytes = 0
        pending.append(encoded)
        written.append(i)
        sizes.append(len(encoded))
        pending_bytes += len(encoded)
        now = time.monotonic()
        if now - reported > EVERY_S:
            reported = now
            remaining = (now - start) / (i + 1) * (len(images) - i - 1)
            say(f"{name}: wrote {i + 1} of {len(images)} images, {sum(sizes) / 1e6:.1f} MB, {remaining:.0f} s remaining")
    if pending:
        flush()
    labels = None if images.labels is None else images.labels[written].tolist()
    return {"version": VERSION, "labels": labels, "sizes": sizes, "shards": shards}


def _encoded(images: Images, index: int) -> bytes:
    """Return image `index` as an encoded file that decodes to exactly `images[index]`."""
    pixels = images[index]
    path = _path(images, index)
    if path is not None:
        original = path.read_bytes()
        try:
            if np.array_equal(decoded(original), pixels):
                return original
        except Exception:  # another format, or further processing such as EXIF rotation, CMYK or a palette
            pass
    return _png(pixels)


def _path(images: Images, index: int) -> Path | None:
    """Return the file of image `index`; None if the image is not read from a file."""
    if isinstance(images, Subset):
        return _path(images.images, int(images.index[index]))
    paths = getattr(images, "paths", None)
    return None if paths is None else Path(os.fsdecode(paths[index]))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    if pixels.shape[0] not in (1, 3):
        raise ValueError(f"Cannot write images with {pixels.shape[0]} channels as shards; expected 1 or 3 channels")
    file = io.BytesIO()
    Image.fromarray(pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0).copy()).save(file, "PNG")
    return file.getvalue()
