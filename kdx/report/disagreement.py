"""A picture of the images with the largest disagreement between student and teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kdx.report.per_class import named

TILE, GAP, LINE, COLUMNS = 150, 14, 17, 8
HEIGHT = TILE + 4 * LINE + GAP  # of a tile with its lines
KINDS = {  # by whether the student and the teacher are right
    (False, True): "student wrong, teacher right",
    (True, False): "student right, teacher wrong",
    (False, False): "both wrong",
    (True, True): "both right",
}
TEACHER, STUDENT, GRAY = "#d1495b", "#2e7dd1", "#666666"
LONGEST = 22  # characters that fit below a tile


def kind(row: Mapping[str, Any]) -> str:
    """Return which of the two networks is right; without a label, whether their predictions differ."""
    if row["label"] < 0:
        return "different predictions" if row["teacher"] != row["student"] else "the same prediction"
    return KINDS[(row["student"] == row["label"], row["teacher"] == row["label"])]


def size(count: int) -> tuple[int, int]:
    """Return width and height of the sheet of `count` images, px."""
    return GAP + min(COLUMNS, count) * (TILE + GAP), GAP + LINE + -(-count // COLUMNS) * HEIGHT


def corner(i: int) -> tuple[int, int]:
    """Return the upper left corner of the i-th image on its sheet, px; it is TILE px wide and high."""
    return GAP + i % COLUMNS * (TILE + GAP), GAP + LINE + i // COLUMNS * HEIGHT


def picture(
    images: Sequence[NDArray[np.uint8]], rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None
) -> Image.Image:
    """Return a sheet of images, each with its label, the predictions and confidences of both networks, and KL in nats.

    Args:
        images: Decoded images, uint8 [C,H,W].
        rows: One mapping per image: "index", "label" (negative if there is none), "teacher", "student" (predicted labels),
            "teacher_confidence", "student_confidence" and "kl".
        names: The names of the classes; None prints their numbers.
    """

    def name(label: int) -> str:
        text = "none" if label < 0 else named(label, names)
        return text if len(text) <= LONGEST - 7 else text[: LONGEST - 8] + "…"

    sheet = Image.new("RGB", size(len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    kinds = [f"{name}: {count}" for name, count in Counter(kind(row) for row in rows).most_common()]
    title = " · ".join(["Largest disagreement of student and teacher: KL(teacher || student) in nats", *kinds])
    pen.text((GAP, GAP // 2), title, "black", font)
    for i, (image, row) in enumerate(zip(images, rows, strict=True)):
        x, y = corner(i)
        _paste(sheet, (x, y), image)
        lines = [
            (f"#{row['index']}  label {name(row['label'])}", "black"),
            (f"teacher {name(row['teacher'])}  {row['teacher_confidence']:.3f}", TEACHER),
            (f"student {name(row['student'])}  {row['student_confidence']:.3f}", STUDENT),
            (f"KL {row['kl']:.2f}", GRAY),
        ]
        for k, (text, color) in enumerate(lines):
            pen.text((x, y + TILE + 2 + k * LINE), text, color, font)
    return sheet


def _paste(sheet: Image.Image, corner: tuple[int, int], image: NDArray[np.uint8]) -> None:
    """Paste the image centered into its tile, as large as possible; small images are enlarged without smoothing."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    whole = Image.fromarray(pixels).convert("RGB")
    scale = TILE / max(whole.size)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    small = whole.resize((max(1, round(whole.width * scale)), max(1, round(whole.height * scale))), method)
    sheet.paste(small, (corner[0] + (TILE - small.width) // 2, corner[1] + (TILE - small.height) // 2))
