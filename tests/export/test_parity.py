"""A file that says something else does not pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdx.export.parity import ExportError, compare, noise


def reference(images: Tensor) -> Tensor:
    return images.flatten(1) * 10


BATCHES = noise((1, 4, 4), (1, 3))


def test_noise_is_images_and_the_same_again() -> None:
    assert [list(images.shape) for images in BATCHES] == [[1, 1, 4, 4], [3, 1, 4, 4]]
    assert all(images.min() >= 0 and images.max() <= 1 for images in BATCHES)
    assert all(torch.equal(a, b) for a, b in zip(BATCHES, noise((1, 4, 4), (1, 3)), strict=True))


def test_the_differences_are_reported() -> None:
    found = compare("it", lambda images: reference(images) + 1e-4, reference, BATCHES)
    assert [one["batch"] for one in found["batches"]] == [1, 3]
    assert found["max_difference"] == pytest.approx(1e-4, rel=0.1)
    size = float(reference(BATCHES[1]).max())
    assert found["batches"][1]["tolerance"] == pytest.approx(1e-5 + 2e-4 * size)


@pytest.mark.parametrize("shift", [0.1, -0.1, float("nan"), float("inf")])
def test_what_differs_is_refused(shift: float) -> None:
    with pytest.raises(ExportError, match=r"it differs .* at batch size 1"):
        compare("it", lambda images: reference(images) + shift, reference, BATCHES)


def test_one_wrong_logit_is_enough() -> None:
    def wrong(images: Tensor) -> Tensor:
        logits = reference(images).clone()
        logits[-1, -1] += 0.02 * len(images) - 0.02  # right for one image alone
        return logits

    with pytest.raises(ExportError, match="at batch size 3"):
        compare("it", wrong, reference, BATCHES)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ExportError, match=r"\[1, 15\], but the student returns \[1, 16\]"):
        compare("it", lambda images: reference(images)[:, :-1], reference, BATCHES)
