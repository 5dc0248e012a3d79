"""Procedural letters and digits: any number of labeled images, without a download."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kdx.data.source import Images, Source, SplitName
from kdx.random import uniform
from kdx.ranges import Count, Number, Resolution, validated

FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
)


@validated
class Glyphs(Source):
    """Letters and digits in the DejaVu faces that matplotlib ships, `size` px, one channel, classes in confusable pairs.

    A pair differs in strokes that are seen at 64 px and are a pixel or less at 16 px, so that a low resolution costs
    accuracy. `train`, `val` and `test` are numbers of images; image `index` of a split depends on (seed, split, index) only.
    """

    channels = 1
    flip = False
    mean = (0.5,)
    std = (0.256,)

    def __init__(
        self,
        size: Resolution,
        train: Count,
        val: Count,
        test: Count,
        classes: str,
        seed: Number,
    ) -> None:
        if len(set(classes)) < max(2, len(classes)) or not (classes.isascii() and classes.isalnum()):
            raise ValueError(f"classes={classes!r}: set two or more different letters and digits, such as classes=8B5S")
        self.num_classes = len(classes)
        self.names = list(classes)
        self.size, self.classes, self.seed = size, classes, seed
        self.counts: dict[SplitName, int] = {"train": train, "val": val, "test": test}

    def check(self) -> None:
        faces()

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        return {name: GlyphImages(name, count, self.classes, self.size, self.seed) for name, count in self.counts.items()}


class GlyphImages(Images):
    """One split, uint8 [1,size,size], drawn at access. The labels cycle through the classes, so they are balanced."""

    def __init__(self, split: str, count: int, classes: str, size: int, seed: int) -> None:
        self.split, self.count, self.classes, self.size, self.seed = split, count, classes, size, seed
        self.fingerprint = f"glyphs {split} {classes} {size} {seed}"
        self.labels: NDArray[np.int64] = np.arange(count, dtype=np.int64) % len(classes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        index = range(self.count)[index]
        numbers = uniform(self.seed, f"glyphs/{self.split}", 0, [index], 12 + self.size**2)[0]
        return _draw(self.classes[index % len(self.classes)], self.size, numbers[:12], numbers[12:])


def _draw(letter: str, size: int, number: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One image [1,size,size] from 12 numbers in [0,1) that pose and light it, and size² more that are its noise."""
    font = _font(str(faces()[int(number[0] * len(FACES))]), round(size * (0.28 + 0.34 * number[1])))
    stroke = size / 64 * 1.2 * number[2]
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).text((size / 2, size / 2), letter, fill=255, font=font, anchor="mm", stroke_width=stroke)
    angle, shear = math.radians(40 * (number[3] - 0.5)), 0.5 * (number[4] - 0.5)
    stretch = 0.8 + 0.4 * number[5]
    # Where each pixel of the image comes from in the upright letter: rows of the inverse of rotation x shear x stretch.
    a, b = math.cos(angle) / stretch, math.sin(angle) / stretch
    c, d = -math.sin(angle) + shear * math.cos(angle), math.cos(angle) + shear * math.sin(angle)
    free = 0.5 * (size - 1.15 * font.size)
    x, y = size / 2 + free * (2 * number[6] - 1), size / 2 + free * (2 * number[7] - 1)
    inverse = (a, b, size / 2 - a * x - b * y, c, d, size / 2 - c * x - d * y)
    posed = mask.transform((size, size), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
    ink = np.asarray(posed, np.float64) / 255
    across, along = _ramp(size, 2 * math.pi * number[8]), 0.3 * number[9]
    contrast = (0.25 + 0.45 * abs(2 * number[10] - 1)) * (1 if number[10] < 0.5 else -1)
    image = 0.5 - contrast / 2 + contrast * ink + along * across
    image += 0.35 * number[11] * (noise.reshape(size, size) - 0.5)
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)[None]


def _ramp(size: int, angle: float) -> NDArray[np.float64]:
    """A plane through the image's center, [size,size], that rises by about one from edge to edge in direction `angle`."""
    at = (np.arange(size) + 0.5) / size - 0.5
    return math.cos(angle) * at[None, :] + math.sin(angle) * at[:, None]


@functools.cache
def faces() -> tuple[Path, ...]:
    """Return the font files of FACES without importing matplotlib. Raises ValueError if matplotlib or a file is missing."""
    spec = importlib.util.find_spec("matplotlib")
    folder = Path(spec.origin).parent / "mpl-data/fonts/ttf" if spec and spec.origin else None
    paths = tuple(folder / f"{face}.ttf" for face in FACES) if folder else ()
    absent = [path for path in paths if not path.is_file()]
    if absent or not paths:
        raise ValueError(
            f"Missing {absent[0] if absent else 'matplotlib'}, needed for the fonts of data=glyphs: "
            "run `uv pip install --reinstall matplotlib`"
        )
    return paths


@functools.lru_cache(maxsize=1024)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
