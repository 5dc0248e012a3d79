"""The image size to which the position embeddings of a ViT belong; a network of any size takes that of its weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kdx.run.quiet import quiet

Size = tuple[int, int]  # height and width in px


def size_of(model: nn.Module) -> Size | None:
    """Return the image size of the position embeddings; None without any that timm can resample."""
    if getattr(model, "pos_embed", None) is None or not hasattr(model, "set_input_size"):
        return None
    embed: Any = model.patch_embed
    return None if getattr(embed, "img_size", None) is None else (int(embed.img_size[0]), int(embed.img_size[1]))


def takes_any_size(model: nn.Module) -> bool:
    """Return whether the embeddings are resampled in each forward to the size of the images."""
    return bool(getattr(model, "dynamic_img_size", False))


def resize(model: nn.Module, size: Size) -> None:
    """Resample the position embeddings to those of another image size, if the network has any, as timm does."""
    if size_of(model) not in (None, size):
        with quiet("timm", level=logging.WARNING):
            model.set_input_size(img_size=size)  # type: ignore[operator]  # timm's


def size_of_weights(model: nn.Module, state: Mapping[str, Tensor]) -> Size | None:
    """Return the size of the square images of a state dict, for a network of any size; None if it has that size or is fixed.

    Resampled to the network's own size, and from there to that of the images, the embeddings would be blurred twice.
    """
    weight, own = state.get("pos_embed"), size_of(model)
    if weight is None or weight.ndim != 3 or own is None or not takes_any_size(model):
        return None
    embed: Any = model.patch_embed
    prefix = 0 if getattr(model, "no_embed_class", False) else int(getattr(model, "num_prefix_tokens", 1))
    side = math.isqrt(max(0, weight.shape[1] - prefix))
    if side < 1 or side * side + prefix != weight.shape[1]:
        return None
    size = side * embed.patch_size[0], side * embed.patch_size[1]
    return None if size == own else size


@contextmanager
def at_size(model: nn.Module, size: Size) -> Iterator[None]:
    """Give a network another size within the context."""
    before, embeddings = size_of(model), model.pos_embed
    assert before is not None
    resize(model, size)
    try:
        yield
    finally:
        resize(model, before)
        model.pos_embed = embeddings
