"""Pictures of runs, scaled down and embedded in the page."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from kdx.compare.runs import RunRecord

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH, SMALL = 900, 96  # px, of a picture and of an image in it
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

    def of(self, run: RunRecord, without: str = "") -> list[dict[str, str | int]]:
        """Return [{"caption", "source" (a data URI), "width", "height"}] but of one file; empty beyond the limits."""
        pictures: list[dict[str, str | int]] = []
        for name, caption in PICTURES if self._runs else ():
            picture = embedded(run.path / name) if name != without else None
            if picture and self._take(str(picture["source"])):
                pictures.append({"caption": caption, **picture})
        self._runs = max(0, self._runs - bool(pictures))
        return pictures

    def examples(self, run: RunRecord) -> list[dict[str, str | list[str]]]:
        """Return [{"kind", "lines", "source" (a data URI)}] of the images with the largest disagreement, while there is room.

        They are cut out of the picture of the run. Without a file, or with one of another version, the list is empty.
        """
        examples: list[dict[str, str | list[str]]] = []
        for example in disagreements(run) if self._runs else ():
            if not self._take(str(example["source"])):
                break
            examples.append(example)
        return examples

    def _take(self, source: str) -> bool:
        """Return whether there is room for the picture. The first one without room is the last: encoding takes long."""
        if len(source) > self._left:
            self._runs = 0
            return False
        self._left -= len(source)
        return True


def disagreements(run: RunRecord) -> list[dict[str, str | list[str]]]:
    """Return all examples of `Album.examples`."""
    from PIL import Image

    from kdx.report import disagreement, per_class

    try:
        rows = json.loads((run.path / "disagreement.json").read_bytes())["examples"]
        with Image.open(run.path / "disagreement.png") as opened:
            sheet = opened.convert("RGB")
        if sheet.size != disagreement.size(len(rows)):
            return []
        names = _class_names(run)
        examples: list[dict[str, str | list[str]]] = []
        for i, row in enumerate(rows):
            x, y = disagreement.corner(i)
            tile = sheet.crop((x, y, x + disagreement.TILE, y + disagreement.TILE)).resize((SMALL, SMALL))
            lines = [f"label {per_class.named(row['label'], names) if row['label'] >= 0 else 'none'}"]
            lines += [
                f"{who} {per_class.named(row[who], names)} {row[f'{who}_confidence']:.3f}" for who in ("teacher", "student")
            ]
            lines += [f"KL {row['kl']:.2f} · #{row['index']}"]
            examples.append({"kind": disagreement.kind(row), "lines": lines, "source": _source(tile)})
    except (OSError, ValueError, KeyError, TypeError, IndexError, SyntaxError, Image.DecompressionBombError):
        return []
    return examples


def _class_names(run: RunRecord) -> list[str] | None:
    from kdx.report import per_class

    try:
        columns, rows = per_class.read(run.path / "per_class.csv")
    except (OSError, ValueError):
        return None
    k, name = columns.index("class"), columns.index("name")
    return list({row[k]: str(row[name]) for row in rows}.values())


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
    return {"source": _source(picture), "width": picture.width, "height": picture.height}


def _source(picture: Image) -> str:
    content, kind = _smaller(picture)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _smaller(picture: Image) -> tuple[bytes, str]:
    """Encode as PNG and as JPEG and return the smaller one: PNG suits drawings, JPEG photographs."""
    encoded = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 82})):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        encoded.append((file.getvalue(), kind))
    return min(encoded, key=lambda pair: len(pair[0]))
