"""Decoding of image files."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from kdx.data.source import BadImageError, Decoding, Images

WHOLE = Decoding()
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
GRAY = ("1", "L", "LA", "La", "F")  # and those that start with I: integers of more than 8 bits
UNPACKED = {"P": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}  # modes that PIL converts best by way of another


def opened(source: str | BytesIO, how: Decoding = WHOLE, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Return an image that is not decoded yet. ValueError if it has more pixels than it may, or as only attacks have."""
    max_pixels = how.max_pixels
    if max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None:  # the limit of PIL itself, which is smaller by default
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        image = Image.open(source, formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"more pixels than data.max_megapixels allows: {error}") from None
    if max_pixels is not None and image.width * image.height > max_pixels:
        image.close()
        size = f"{image.width}x{image.height} px"
        raise ValueError(f"{size} are more than data.max_megapixels={max_pixels / 1e6:g}")
    if how.jpeg_px is not None:
        image.draft(None, (how.jpeg_px, how.jpeg_px))  # of a JPEG: its scale, not its mode
    return image


def decode_image(path: str, channels: int, how: Decoding = WHOLE) -> NDArray[np.uint8]:
    """Decode an image file to uint8 [C,H,W], rotated as its EXIF data say: C = 1 is gray, C = 3 is RGB.

    Of an animation, the first frame is used. Colors are converted as in PIL's `convert("RGB")` and torchvision's loader: the
    alpha channel is dropped, palettes are looked up, CMYK is converted without a color profile. Unlike there, 16-bit gray is
    scaled (65535 to 255) and not clipped. At reduced size, libjpeg averages in its frequency domain, in a fraction of the time.

    Raises BadImageError if the file cannot be read, is not an image, has more pixels than it may, is truncated, or contains
    floats or 32-bit integers.
    """
    return _decoded(path, path, channels, how)


def decode_bytes(encoded: bytes, name: str, channels: int, how: Decoding = WHOLE) -> NDArray[np.uint8]:
    """Decode the content of an image file, as `decode_image` does; a message calls it `name`."""
    return _decoded(BytesIO(encoded), name, channels, how)


def _decoded(source: str | BytesIO, name: str, channels: int, how: Decoding) -> NDArray[np.uint8]:
    assert channels in (1, 3)
    try:
        with opened(source, how) as image:
            image.load()
            return _pixels(_upright(image), channels)
    except MemoryError:
        raise
    except Exception as error:  # damaged files can raise any exception in PIL
        raise BadImageError(
            f"{name} cannot be decoded ({_reason(source, error)}): copy it again, or use data.on_bad_image=skip"
        ) from error


def channels_of(sources: Iterable[str | BytesIO]) -> int:
    """Return 1 if all these image files are gray, by their headers, else 3. Files that cannot be read do not count."""
    gray = [is_gray for is_gray in map(_is_gray_file, sources) if is_gray is not None]
    return 1 if gray and all(gray) else 3


def _is_gray_file(source: str | BytesIO) -> bool | None:
    try:
        with Image.open(source) as image:
            return is_gray(image)
    except Exception:  # damaged files can raise any exception in PIL; they are reported when they are decoded
        return None


def is_gray(image: Image.Image) -> bool:
    """Return whether the mode of an image has no colors, or its palette none."""
    if image.mode == "P":
        palette = np.reshape(image.getpalette() or [0, 0, 1], (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return image.mode in GRAY or image.mode.startswith("I")


def fault(path: str, how: Decoding = WHOLE) -> tuple[str | None, bool]:
    """Return why `decode_image` would fail on a file, None if it would not; and whether the image has colors.

    JPEG files are decoded at reduced size, which reads all their data in less time.
    """
    try:
        with opened(path, replace(how, jpeg_px=1)) as image:
            colored = not is_gray(image)
            image.load()
            if image.format != "JPEG":
                _pixels(image, 1)
            return None, colored
    except MemoryError:
        raise
    except Exception as error:  # as in `decode_image`
        return _reason(path, error), False


def header_fault(path: str, how: Decoding = WHOLE) -> tuple[str | None, bool]:
    """Return the same as `fault`, as far as the file's size and header tell."""
    try:
        with opened(path, how) as image:
            return None, not is_gray(image)
    except Exception as error:  # as in `decode_image`
        return _reason(path, error), False


def _upright(image: Image.Image) -> Image.Image:
    """Rotate the image as its EXIF data say. Unlike `ImageOps.exif_transpose`, never writes EXIF data, which can fail."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF data; the pixels may be intact
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("unknown pixel range: expected integers of at most 16 bits, got floats")
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("unknown pixel range: expected integers of at most 16 bits, got larger values")
        gray = ((deep + 128) // 257).astype(np.uint8)
        return np.repeat(gray[None], channels, 0)
    unpacked = image.convert(UNPACKED.get(image.mode, image.mode))
    if channels == 1:
        return np.array(unpacked.convert("L"))[None]
    return np.array(np.asarray(unpacked.convert("RGB")).transpose(2, 0, 1), order="C")


def _reason(source: str | BytesIO, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        size = os.path.getsize(source) if isinstance(source, str) else source.getbuffer().nbytes
        return "not an image" if size else "the file is empty"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


class Paths(Sequence[bytes]):
    """Paths in few arrays. 14 million take 0.5 GB, and forked workers share them; a list they would copy bit by bit."""

    def __init__(self, paths: Iterable[str]) -> None:
        folders: dict[bytes, int] = {}
        which, ends, names = array("i"), array("q", [0]), bytearray()
        for path in paths:
            folder, name = os.path.split(os.fsencode(path))
            which.append(folders.setdefault(folder, len(folders)))
            names += name
            ends.append(len(names))
        self.folders = np.array(list(folders), np.bytes_)
        self.which, self.ends = np.frombuffer(which, np.int32), np.frombuffer(ends, np.int64)
        self.names = np.frombuffer(names, np.uint8)

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # one at a time
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = int(index) % len(self)
        return os.path.join(
            bytes(self.folders[self.which[index]]), self.names[self.ends[index] : self.ends[index + 1]].tobytes()
        )


class ImageFiles(Images):
    """Images that are decoded from files at access."""

    def __init__(self, paths: Iterable[str], labels: Sequence[int] | NDArray[np.int64] | None, channels: int) -> None:
        self.paths = Paths(paths)
        self.labels = None if labels is None else np.asarray(labels, np.int64)
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return decode_image(self.path(index), self.channels, self.decoding)

    def path(self, index: int) -> str:
        """Return the file of an image."""
        return os.fsdecode(self.paths[index])
