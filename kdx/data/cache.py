"""Decoded pixels on disk, memory-mapped: patient runs decode each image once, not once per epoch."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from kdx.data.source import BadImageError, Images, Subset

PIXELS, OFFSETS, SHAPES = "pixels.bin", "offsets.npy", "shapes.npy"
SAMPLE = 64  # images that the size is estimated from
EVERY_S = 10.0  # seconds between two lines of progress


def key(images: Images, name: str) -> str:
    """32 hexadecimal digits that stay as long as the pixels do.

    Over `images.paths` with sizes and modification times, or over `images.fingerprint`, a string; images that have neither
    are all decoded and their pixels are hashed.
    """
    sha = hashlib.sha256(f"{name} {type(images).__name__} {len(images)} {getattr(images, 'channels', '')}".encode())
    if isinstance(images, Subset):
        sha.update(key(images.images, name).encode())
        sha.update(images.index.astype(np.int64).tobytes())
    elif hasattr(images, "paths"):
        for path in images.paths:
            sha.update(b"\n" + os.fsencode(path) + b" " + _state(path).encode())
    elif hasattr(images, "fingerprint"):
        sha.update(images.fingerprint.encode())
    else:
        for i in range(len(images)):
            image = _decoded(images, i)
            sha.update(b"" if image is None else str(image.shape).encode() + image.tobytes())
    return sha.hexdigest()[:32]


def _state(path: str | bytes) -> str:
    try:
        found = os.stat(path)
    except OSError as error:  # who reads it is told
        return str(error.errno)
    return f"{found.st_size} {found.st_mtime_ns}"


def cached(images: Images, folder: Path, key: str, say: Callable[[str], None]) -> Images:
    """The same images, read from `folder/key`, which is written first if it is not there, whole.

    An image that cannot be decoded stays one: reading it raises what `images` raises. Processes that ask at once write
    once. ValueError, with the remedy, where the disk is too small.
    """
    place = folder / key
    found = _opened(images, place)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that writes the cache {place}")
            lock.acquire()
    except OSError as error:
        raise ValueError(f"{folder}: {error.strerror}: choose another data.cache or data.cache=null") from None
    try:
        found = _opened(images, place)
        if found is None:
            if place.exists():
                say(f"{place} is damaged: writing it again")
            _write(images, place, say)
            found = _opened(images, place)
            assert found is not None
    finally:
        lock.release()
    return found


class CachedImages(Images):
    """Images whose pixels are in the file `place/pixels.bin`, one after another; image i starts at `offsets[i]`."""

    def __init__(self, images: Images, place: Path, offsets: NDArray[np.int64], shapes: NDArray[np.int32]) -> None:
        self.images, self.place, self.offsets, self.shapes = images, place, offsets, shapes
        self.labels = images.labels
        self._pixels: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        shape = self.shapes[index]
        if not shape.all():  # it could not be decoded: let its own source say so
            return self.images[index]
        if self._pixels is None:
            self._pixels = np.memmap(self.place / PIXELS, np.uint8, "r").view(np.ndarray)
        start = self.offsets[index]
        return self._pixels[start : start + shape.prod(dtype=np.int64)].reshape(shape).copy()  # torch wants to own it

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}  # a memory map would travel as its content


def _opened(images: Images, place: Path) -> CachedImages | None:
    """The cache at `place`; None where it is not there, or its parts do not fit each other."""
    try:
        offsets, shapes = np.load(place / OFFSETS), np.load(place / SHAPES)
        size = (place / PIXELS).stat().st_size
    except (OSError, ValueError, EOFError):
        return None
    sizes = shapes.prod(1, dtype=np.int64) if shapes.shape == (len(images), 3) else None
    if sizes is None or offsets.shape != (len(images),) or size != sizes.sum() or (offsets != np.cumsum(sizes) - sizes).any():
        return None
    return CachedImages(images, place, offsets, shapes)


def _decoded(images: Images, index: int) -> NDArray[np.uint8] | None:
    try:
        return images[index]
    except BadImageError:
        return None


def _check_space(images: Images, place: Path, say: Callable[[str], None]) -> None:
    sample = [_decoded(images, i) for i in range(min(SAMPLE, len(images)))]
    sizes = [image.nbytes for image in sample if image is not None]
    needed = len(images) * sum(sizes) / max(1, len(sizes))
    free = shutil.disk_usage(place.parent).free
    say(f"writing {len(images)} decoded images, about {needed / 1e9:.2f} GB, to {place}")
    if needed > free:
        raise ValueError(
            f"the cache of decoded images needs {needed / 1e9:.2f} GB in {place.parent}, {free / 1e9:.2f} GB are free: "
            "choose another data.cache or data.cache=null"
        )


def _write(images: Images, place: Path, say: Callable[[str], None]) -> None:
    """Write the cache as a draft beside `place`, then give it its name: it appears whole or not at all."""
    _check_space(images, place, say)
    draft = place.with_name(f"{place.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _fill(images, draft, say)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(draft, place)
    except OSError as error:
        raise ValueError(
            f"{place.parent}: {error}, while the cache of decoded images was written: "
            "choose another data.cache or data.cache=null"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fill(images: Images, draft: Path, say: Callable[[str], None]) -> None:
    draft.mkdir()
    shapes = np.zeros((len(images), 3), np.int32)
    began = told = time.monotonic()
    with (draft / PIXELS).open("wb") as file:
        for i in range(len(images)):
            image = _decoded(images, i)
            if image is not None:
                shapes[i] = image.shape
                file.write(image.tobytes())
            now = time.monotonic()
            if now - told > EVERY_S:
                told = now
                left = (now - began) / (i + 1) * (len(images) - i - 1)
                say(f"decoded {i + 1} of {len(images)} images, {file.tell() / 1e9:.2f} GB, {left:.0f} s to go")
        file.flush()
        os.fsync(file.fileno())
    sizes = shapes.prod(1, dtype=np.int64)
    np.save(draft / SHAPES, shapes)
    np.save(draft / OFFSETS, np.cumsum(sizes) - sizes)
