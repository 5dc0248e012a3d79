"""A picture of the first training batch: originals with the boxes of both views, teacher images, student images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kdx.data.loaders import without
from kdx.data.resident import OnBadImage, decode
from kdx.data.sampler import Sampler
from kdx.data.source import Images
from kdx.types import Batch, Draw, Examples, RenderedBatch, View
from kdx.views.observer import Observer

MOST_COLUMNS = 8
TILE, GAP, LEFT, LINE = 160, 12, 118, 17
TEACHER, STUDENT = "#d1495b", "#2e7dd1"


def draw_views(observer: Observer, images: Images, batch_size: int, seed: int, on_bad_image: OnBadImage) -> Image.Image:
    """Return the panel of the first training batch of a run.

    Args:
        observer: Draws and renders the views.
        images: The training images.
        batch_size: The batch size of the run.
        seed: The seed of the run.
        on_bad_image: What to do with images that cannot be decoded.
    """
    first, epoch = observer.order(seed, 0)
    order = Sampler(len(images), min(batch_size, len(images)), first, train=True, halo=observer.halo)
    number, index = next(order.batches(epoch))
    index = index[: MOST_COLUMNS + observer.halo]
    decoded, bad = decode(images, index, on_bad_image)
    draw = without(Draw(seed, 0, number, index), observer.halo, bad)
    originals = dict(zip([i for i in index.tolist() if i not in bad], decoded, strict=True))
    chosen = [originals[i] for i in draw.index.tolist()]
    sizes = np.array([image.shape[1:] for image in chosen], np.int64)
    rendered = observer.look(Examples(draw, chosen, sizes, None, observer.halo))
    lam = None if observer.mixing is None else observer.mixing.draw(rendered.draw).lam.tolist()
    return panel([image.numpy() for image in chosen[observer.halo :]], rendered, observer.finish(rendered), lam)


def panel(
    originals: Sequence[NDArray[np.uint8]], rendered: RenderedBatch, batch: Batch, lam: Sequence[float] | None
) -> Image.Image:
    """Return a picture of the first examples of a batch, one column each, without the halo.

    Args:
        originals: Decoded images, uint8 [C,H,W].
        rendered: The rendered batch, with its views.
        batch: The images that the networks receive, after mixing.
        lam: The example's own share in the mixed image; None without mixing.
    """
    count = len(originals)
    rows = 2 + (batch.teacher_images is not None)
    height = rows * (TILE + GAP) + 3 * LINE + GAP
    sheet = Image.new("RGB", (LEFT + count * (TILE + GAP), height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    assert rendered.views is not None
    teacher_view, student_view = (_without_halo(view, rendered.halo) for view in rendered.views)
    index = rendered.draw.index[rendered.halo :]

    def label(row: int, *lines: str) -> None:
        for i, text in enumerate(lines):
            pen.text((6, GAP + row * (TILE + GAP) + i * LINE), text, "black", font)

    label(0, "original,", "boxes of", "", "student")
    has_teacher = batch.teacher_images is not None
    pen.text((6, GAP + 3 * LINE), "student", STUDENT, font)
    if has_teacher:
        pen.text((6, GAP + 2 * LINE), "teacher", TEACHER, font)
        assert batch.teacher_images is not None
        label(1, "teacher input", f"{batch.teacher_images.shape[-1]} px")
    label(rows - 1, "student input", f"{batch.student_images.shape[-1]} px")
    for column in range(count):
        x = LEFT + column * (TILE + GAP)
        box = teacher_view.box[column] if has_teacher else None
        _original(sheet, (x, GAP), originals[column], box, student_view.box[column])
        if batch.teacher_images is not None:
            sheet.paste(_picture(batch.teacher_images[column]), (x, GAP + TILE + GAP))
        sheet.paste(_picture(batch.student_images[column]), (x, GAP + (rows - 1) * (TILE + GAP)))
        flips = (["t"] if has_teacher and teacher_view.flip[column] else []) + (["s"] if student_view.flip[column] else [])
        facts = [f"#{index[column]}", f"flip {'+'.join(flips)}" if flips else "no flip"]
        facts += [f"lam {lam[column]:.2f}"] if lam is not None else []
        for i, text in enumerate(facts):
            pen.text((x, rows * (TILE + GAP) + GAP + i * LINE), text, "black", font)
    return sheet


def _without_halo(view: View, halo: int) -> View:
    return View(view.box[halo:], view.flip[halo:])


def _picture(image: Tensor) -> Image.Image:
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return _pil(pixels.numpy()).resize((TILE, TILE), Image.Resampling.NEAREST)


def _pil(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).convert("RGB")


def _original(
    sheet: Image.Image,
    corner: tuple[int, int],
    image: NDArray[np.uint8],
    teacher: NDArray[np.float64] | None,
    student: NDArray[np.float64],
) -> None:
    """Draw the original into a tile, with the boxes on top and a margin for boxes that extend beyond the image."""
    room = 0.8 * TILE
    picture = _pil(image)
    scale = room / max(picture.size)
    small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    x, y = corner[0] + (TILE - small.width) // 2, corner[1] + (TILE - small.height) // 2
    sheet.paste(small, (x, y))
    pen = ImageDraw.Draw(sheet)
    for box, color, width in ((teacher, TEACHER, 4), (student, STUDENT, 2)):
        if box is not None:
            top, left, height, across = (float(v) for v in box)
            edges = (x + left * small.width, y + top * small.height)
            ends = (edges[0] + across * small.width - 1, edges[1] + height * small.height - 1)
            pen.rectangle((*edges, *ends), outline=color, width=width)
