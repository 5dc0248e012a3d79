"""Comparison of the logits of an exported file with those of the trained student."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

RELATIVE, ABSOLUTE = 2e-4, 1e-5  # relative to the largest logit: float32 has 7 digits, and the order of summation differs

LogitsFunction = Callable[[Tensor], Tensor]  # images [B,C,R,R] in [0,1] -> logits [B,K]


class ExportError(RuntimeError):
    """A format cannot be written, or the logits of a file differ from the student's. The message ends with the remedy."""


def noise(shape: tuple[int, int, int], batches: Iterable[int]) -> list[Tensor]:
    """Return a batch of uniform noise in [0,1], [b,C,R,R], for each batch size b; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(batch, *shape, generator=generator) for batch in batches]


def compare(name: str, exported: LogitsFunction, reference: LogitsFunction, batches: list[Tensor]) -> dict[str, Any]:
    """Return the largest absolute difference of the logits in total and per batch, with the tolerance.

    The tolerance of a batch is 1e-5 + 2e-4 times the largest absolute reference logit.

    Args:
        name: The name of the file in messages.
        exported: Computes logits with the exported file.
        reference: Computes logits with the trained student.
        batches: Batches of images, each [B,C,R,R] in [0,1].

    Raises:
        ExportError: If a difference exceeds the tolerance, or if the shapes differ.
    """
    reports = []
    for images in batches:
        with torch.inference_mode():
            expected, actual = reference(images), exported(images)
        if actual.shape != expected.shape:
            shapes = f"{list(actual.shape)}, but the student returns {list(expected.shape)}"
            raise ExportError(f"{name} returns logits of shape {shapes}: export without this format")
        difference, size = float((actual - expected).abs().max()), float(expected.abs().max())
        tolerance = ABSOLUTE + RELATIVE * size
        if not difference <= tolerance:  # also true for NaN
            raise ExportError(
                f"{name} differs from the trained student by {difference:.2g} at batch size {len(images)}; the tolerance is "
                f"{tolerance:.2g}. Nothing was written: export without this format"
            )
        reports.append({"batch": len(images), "max_difference": difference, "tolerance": tolerance, "max_logit": size})
    return {"batches": reports, "max_difference": max(report["max_difference"] for report in reports)}
