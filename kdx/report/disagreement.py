"""A picture of the images with the largest disagreement between student and teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kdx.report.per_class import named

TILE, GAP, LINE, COLUMNS = 150, 14, 17, 8
TEACHER, STUDENT, GRAY = "#d1495b", "#2e7dd1", "#666666"
LONGEST = 22  # characters that fit below a tile


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

    across = min(COLUMNS, len(rows))
    down = -(-len(rows) // COLUMNS)
    height = TILE + 4 * LINE + GAP
    sheet = Image.new("RGB", (GAP + across * (TILE + GAP), GAP + LINE + down * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    pen.text((GAP, GAP // 2), "Largest disagreement of student and teacher: KL(teacher || student) in nats", "black", font)
    for i, (image, row) in enumerate(zip(images, rows, strict=True)):
        x, y = GAP + i % COLUMNS * (TILE + GAP), GAP + LINE + i // COLUMNS * height
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
