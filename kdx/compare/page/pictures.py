"""Pictures of runs, made small and put into the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from kdx.compare.runs import RunRecord

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 900  # px
MOST_RUNS = 12
BUDGET = 900_000  # characters of all pictures together
PICTURES = (
    ("views.png", "What the networks see: the first batch"),
    ("disagreement.png", "Where student and teacher disagree most"),
)


class Album:
    """Gives the pictures of runs until there are enough on the page."""

    def __init__(self, room: int = BUDGET) -> None:
        self._runs, self._left = MOST_RUNS, min(room, BUDGET)

    def of(self, run: RunRecord) -> list[dict[str, str | int]]:
        """[{"caption", "source" (a data URI), "width", "height"}]; empty without pictures, or when there are enough."""
        found: list[dict[str, str | int]] = []
        for name, caption in PICTURES if self._runs else ():
            picture = embedded(run.path / name)
            if picture and len(str(picture["source"])) <= self._left:
                self._left -= len(str(picture["source"]))
                found.append({"caption": caption, **picture})
        self._runs -= bool(found)
        return found


def embedded(path: Path, width: int = WIDTH) -> dict[str, str | int] | None:
    """{"source", "width", "height"} of the picture, at most `width` px wide; None if it is missing or damaged."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # SyntaxError: Pillow's, of a broken PNG
        return None
    if picture.width > width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))), Image.Resampling.LANCZOS)
    content, kind = _smaller(picture)
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"source": source, "width": picture.width, "height": picture.height}


def _smaller(picture: Image) -> tuple[bytes, str]:
    """As PNG or as JPEG, whichever takes less: drawings are small as PNG, photographs as JPEG."""
    encoded = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 82})):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        encoded.append((file.getvalue(), kind))
    return min(encoded, key=lambda pair: len(pair[0]))
