"""Pictures of runs, scaled down and embedded in the page."""

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
    ("views.png", "Views of the first training batch"),
    ("disagreement.png", "Largest disagreement between student and teacher"),
)


class Album:
    """The pictures of runs, limited to MOST_RUNS runs and a number of characters for the whole page."""

    def __init__(self, room: int = BUDGET) -> None:
        self._runs, self._left = MOST_RUNS, min(room, BUDGET)

    def of(self, run: RunRecord) -> list[dict[str, str | int]]:
        """Return [{"caption", "source" (a data URI), "width", "height"}]; empty if the run has none or the limit is reached."""
        pictures: list[dict[str, str | int]] = []
        for name, caption in PICTURES if self._runs else ():
            picture = embedded(run.path / name)
            if picture and len(str(picture["source"])) <= self._left:
                self._left -= len(str(picture["source"]))
                pictures.append({"caption": caption, **picture})
        self._runs -= bool(pictures)
        return pictures


def embedded(path: Path, width: int = WIDTH) -> dict[str, str | int] | None:
    """Return {"source", "width", "height"} of the picture, at most `width` px wide; None if it is missing or damaged."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow raises SyntaxError for a broken PNG
        return None
    if picture.width > width:
        picture = picture.resize((width, max(1, round(picture.height * width / picture.width))), Image.Resampling.LANCZOS)
    content, kind = _smaller(picture)
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"source": source, "width": picture.width, "height": picture.height}


def _smaller(picture: Image) -> tuple[bytes, str]:
    """Encode as PNG and as JPEG and return the smaller one: PNG suits drawings, JPEG photographs."""
    encoded = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 82})):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        encoded.append((file.getvalue(), kind))
    return min(encoded, key=lambda pair: len(pair[0]))
