"""The images on which student and teacher are furthest apart, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kdx.report.per_class import named

TILE, GAP, LINE, COLUMNS = 150, 14, 17, 8
TEACHER, STUDENT, GRAY = "#d1495b", "#2e7dd1", "#666666"
LONGEST = 22  # letters that fit over a tile


def picture(
    images: Sequence[NDArray[np.uint8]], rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None
) -> Image.Image:
    """A sheet of decoded images [C,H,W], each over its label and what teacher and student say, how surely, and KL in nats."""

    def name(label: int) -> str:
        text = "none" if label < 0 else named(label, names)
        return text if len(text) <= LONGEST - 7 else text[: LONGEST - 8] + "…"

    across = min(COLUMNS, len(rows))
    down = -(-len(rows) // COLUMNS)
    height = TILE + 4 * LINE + GAP
    sheet = Image.new("RGB", (GAP + across * (TILE + GAP), GAP + LINE + down * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    pen.text((GAP, GAP // 2), "Student and teacher furthest apart: the largest KL(teacher || student)", "black", font)
    for i, (image, row) in enumerate(zip(images, rows, strict=True)):
        x, y = GAP + i % COLUMNS * (TILE + GAP), GAP + LINE + i // COLUMNS * height
        _paste(sheet, (x, y), image)
        said = [
            (f"#{row['index']}  label {name(row['label'])}", "black"),
            (f"{name(row['teacher'])}  {row['teacher_confidence']:.3f}", TEACHER),
            (f"{name(row['student'])}  {row['student_confidence']:.3f}", STUDENT),
            (f"KL {row['kl']:.2f}", GRAY),
        ]
        for k, (text, color) in enumerate(said):
            who = {TEACHER: "teacher ", STUDENT: "student "}.get(color, "")
            pen.text((x, y + TILE + 2 + k * LINE), who + text, color, font)
    return sheet


def _paste(sheet: Image.Image, corner: tuple[int, int], image: NDArray[np.uint8]) -> None:
    """The image in the middle of its tile, as large as it fits; small ones keep their pixels."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    whole = Image.fromarray(pixels).convert("RGB")
    scale = TILE / max(whole.size)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    small = whole.resize((max(1, round(whole.width * scale)), max(1, round(whole.height * scale))), method)
    sheet.paste(small, (corner[0] + (TILE - small.width) // 2, corner[1] + (TILE - small.height) // 2))
