"""Is what was written what was trained? Logits of the one compared with logits of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

RELATIVE, ABSOLUTE = 2e-4, 1e-5  # of the largest logit's size; kernels add in another order, and float32 has 7 digits

Answer = Callable[[Tensor], Tensor]


class ExportError(RuntimeError):
    """A student that cannot be written in a format, or whose file says something else. The message ends with the remedy."""


def noise(shape: tuple[int, int, int], batches: Iterable[int]) -> list[Tensor]:
    """A batch of uniform noise in [0,1], [b,C,R,R], for each b; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(batch, *shape, generator=generator) for batch in batches]


def compare(name: str, answer: Answer, reference: Answer, batches: list[Tensor]) -> dict[str, Any]:
    """Largest absolute difference of the logits for each batch, with its tolerance; ExportError if one is larger.

    The tolerance is 1e-5 + 2e-4 of the largest reference logit of the batch.
    """
    found = []
    for images in batches:
        with torch.inference_mode():
            expected, got = reference(images), answer(images)
        if got.shape != expected.shape:
            raise ExportError(f"{name} gives {list(got.shape)} and the student {list(expected.shape)}: leave this format out")
        difference, size = float((got - expected).abs().max()), float(expected.abs().max())
        tolerance = ABSOLUTE + RELATIVE * size
        if not difference <= tolerance:  # NaN is no agreement either
            raise ExportError(
                f"{name} differs from the trained student by {difference:.2g} at batch {len(images)}, where {tolerance:.2g} is "
                "allowed; nothing was written: leave this format out"
            )
        found.append({"batch": len(images), "max_difference": difference, "tolerance": tolerance, "max_logit": size})
    return {"batches": found, "max_difference": max(one["max_difference"] for one in found)}
