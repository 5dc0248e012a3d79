"""Cache of decoded pixels on disk, memory-mapped: long runs decode each image once, not once per epoch."""

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

from kdx.data.source import BadImageError, Images, Joined, Subset

PIXELS, OFFSETS, SHAPES = "pixels.bin", "offsets.npy", "shapes.npy"
SAMPLE = 64  # images that the size is estimated from
EVERY_S = 10.0  # seconds between two lines of progress


def key(images: Images, name: str) -> str:
    """Return a hash of the images, 32 hexadecimal digits.

    It covers `images.paths` with sizes and modification times, or the string `images.fingerprint`; without both, all images
    are decoded and their pixels hashed.
    """
    reduced = "" if images.decoding.jpeg_px is None else f" {images.decoding.jpeg_px}"
    sha = hashlib.sha256(f"{name} {type(images).__name__} {len(images)} {getattr(images, 'channels', '')}{reduced}".encode())
    if isinstance(images, Subset):
        sha.update(key(images.images, name).encode())
        sha.update(images.index.astype(np.int64).tobytes())
    elif isinstance(images, Joined):
        for part in images.parts:
            sha.update(key(part, name).encode())
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
        status = os.stat(path)
    except OSError as error:  # reported when the image is read
        return str(error.errno)
    return f"{status.st_size} {status.st_mtime_ns}"


def cached(images: Images, folder: Path, key: str, say: Callable[[str], None]) -> Images:
    """Return the images backed by the cache `folder/key`, which is written first if it is missing or incomplete.

    For an image that cannot be decoded, the error of `images` is raised at access. If several processes need the same cache,
    one writes it and the others wait. Raises ValueError, with the remedy, if the disk space is not sufficient.
    """
    place = folder / key
    cache = _opened(images, place)
    if cache is not None:
        return cache
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Waiting for another process that writes the cache {place}")
            lock.acquire()
    except OSError as error:
        raise ValueError(f"{folder}: {error.strerror}: choose another data.cache or data.cache=null") from None
    try:
        cache = _opened(images, place)
        if cache is None:
            if place.exists():
                say(f"{place} is damaged: writing it again")
            _write(images, place, say)
            cache = _opened(images, place)
            assert cache is not None
    finally:
        lock.release()
    return cache


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
        if not shape.all():  # not decodable: the source raises the error
            return self.images[index]
        if self._pixels is None:
            self._pixels = np.memmap(self.place / PIXELS, np.uint8, "r").view(np.ndarray)
        start = self.offsets[index]
        return self._pixels[start : start + shape.prod(dtype=np.int64)].reshape(shape).copy()  # torch needs a writable array

    def origins(self, index: NDArray[np.int64]) -> list[tuple[Images, NDArray[np.int64]]]:
        return self.images.origins(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}  # pickling a memory map would copy its content


def _opened(images: Images, place: Path) -> CachedImages | None:
    """Return the cache at `place`, or None if it is missing or inconsistent."""
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
    """Write the cache to a temporary folder and rename it to `place`, so that it is never incomplete."""
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
    began = reported = time.monotonic()
    with (draft / PIXELS).open("wb") as file:
        for i in range(len(images)):
            image = _decoded(images, i)
            if image is not None:
                shapes[i] = image.shape
                file.write(image.tobytes())
            now = time.monotonic()
            if now - reported > EVERY_S:
                reported = now
                left = (now - began) / (i + 1) * (len(images) - i - 1)
                say(f"decoded {i + 1} of {len(images)} images, {file.tell() / 1e9:.2f} GB, {left:.0f} s to go")
        file.flush()
        os.fsync(file.fileno())
    sizes = shapes.prod(1, dtype=np.int64)
    np.save(draft / SHAPES, shapes)
    np.save(draft / OFFSETS, np.cumsum(sizes) - sizes)
