"""Render: the same pixels as PIL's crop and resize, torchvision's pad and crop, whatever shares the batch."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as tvf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from kdx.types import View
from kdx.views import render as module
from kdx.views.render import Interpolation, coverage, render, render_each

ROUNDING = 1.001 / 255  # PIL rounds to uint8 after each of its two passes
WHOLE = (0.0, 0.0, 1.0, 1.0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def at(*boxes: tuple[float, ...], flip: bool = False) -> View:
    return View(np.array(boxes, np.float64).reshape(-1, 4), np.full(len(boxes), flip))


def pixel_boxes(rng: np.random.Generator, height: int, width: int, count: int, least: int = 1) -> np.ndarray:
    """Boxes [count,4] in whole px: top, left, height, width."""
    extent = np.stack([rng.integers(least, side + 1, count) for side in (height, width)], 1)
    return np.concatenate([rng.integers(0, np.array([height, width]) - extent + 1), extent], 1)


FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def by_pil(image: Tensor, box: np.ndarray, resolution: int, interpolation: str = "bilinear") -> Tensor:
    """PIL's crop and antialiased resize, a channel at a time, [C,R,R] in [0,1]."""
    top, left, height, width = (int(x) for x in box)
    cut = [Image.fromarray(c.numpy()).crop((left, top, left + width, top + height)) for c in image]
    done = [np.array(c.resize((resolution, resolution), FILTERS[interpolation])) for c in cut]
    return torch.from_numpy(np.stack(done)).float() / 255


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    ("size", "resolution"), [((32, 32), 32), ((32, 32), 16), ((64, 64), 48), ((8, 8), 4), ((8, 8), 12), ((40, 90), 24)]
)
def test_pixels_are_those_of_pils_crop_and_resize(size: tuple[int, int], resolution: int, channels: int, flip: bool) -> None:
    images = noise(60, channels, *size)
    boxes = pixel_boxes(np.random.default_rng(1), *size, len(images))
    boxes[0] = 0, 0, *size
    mine = render(images, at(*map(tuple, boxes / [*size, *size]), flip=flip), resolution)
    theirs = torch.stack([by_pil(i, b, resolution) for i, b in zip(images, boxes, strict=True)])
    assert mine.shape == (60, channels, resolution, resolution) and mine.dtype == torch.float32
    assert (mine - (theirs.flip(-1) if flip else theirs)).abs().max() <= ROUNDING


@pytest.mark.parametrize("shift", [(-4, -4), (-4, 3), (0, 4), (4, -1), (0, 0)])
@pytest.mark.parametrize("size", [(32, 32), (30, 30)])
def test_a_padded_crop_is_exactly_torchvisions_pad_and_crop(size: tuple[int, int], shift: tuple[int, int]) -> None:
    images = noise(3, 3, *size)
    view = at(*[(shift[0] / size[0], shift[1] / size[1], 1.0, 1.0), WHOLE, (-4 / size[0], 4 / size[1], 1.0, 1.0)])
    offsets = [(4 + shift[0], 4 + shift[1]), (4, 4), (0, 8)]
    theirs = torch.stack([tvf.crop(tvf.pad(i, [4]), *o, *size) for i, o in zip(images, offsets, strict=True)])
    mine = render(images, view, size[0])
    assert torch.equal((mine * 255).round(), theirs.float())
    torch.testing.assert_close(mine, theirs.float() / 255, rtol=1e-6, atol=0)


fractions = st.floats(0, 1)


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(fractions, fractions), st.tuples(fractions, fractions), st.booleans(), st.sampled_from([4, 13, 64]),
    st.sampled_from([(1, 1), (2, 9), (16, 16), (33, 700)]),
)  # fmt: skip
def test_any_box_inside_gives_finite_pixels_within_the_range_of_the_image(
    extent: tuple[float, float], place: tuple[float, float], flip: bool, resolution: int, size: tuple[int, int]
) -> None:
    corner = (place[0] * (1 - extent[0]), place[1] * (1 - extent[1]))
    images = noise(1, 2, *size).clamp(min=50, max=200)
    pixels = render(images, at((*corner, *extent), flip=flip), resolution) * 255
    assert pixels.isfinite().all()
    assert images.min() - 1e-2 <= pixels.min() and pixels.max() <= images.max() + 1e-2


@pytest.mark.parametrize("extent", [0.0, 1e-9, 0.01, 1 / 16])
@pytest.mark.parametrize("corner", [0.0, 0.03, 0.53, 1.0])
def test_a_box_narrower_than_a_pixel_shows_the_pixel_it_lies_in(corner: float, extent: float) -> None:
    images = noise(1, 1, 16, 16)
    start = min(corner, 1 - extent)
    shown = render(images, at((start, start, extent, extent)), 8) * 255
    pixel = min(int((start + extent / 2) * 16), 15)
    torch.testing.assert_close(shown, images[:, :, pixel, pixel].float()[..., None, None].expand(1, 1, 8, 8))


def test_images_of_other_sizes_on_one_canvas_look_as_they_do_alone() -> None:
    rng, sizes = np.random.default_rng(0), [(20, 31), (9, 12), (32, 5), (32, 32)]
    images = [noise(3, *size, seed=i) for i, size in enumerate(sizes)]
    canvas = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    for row, image in zip(canvas, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    boxes = [(0.1, 0.2, 0.7, 0.5), WHOLE, (-0.125, 0.25, 1.0, 1.0), tuple(rng.uniform(0, 0.5, 4))]
    together = render(canvas, at(*boxes), 16, torch.tensor(sizes))
    alone = torch.cat([render(i[None], at(b), 16) for i, b in zip(images, boxes, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.sampled_from([(32, 12), (24, 48), (64, 16)]))
def test_a_marker_lands_at_the_same_fraction_at_two_resolutions(
    row: int, column: int, flip: bool, resolutions: tuple[int, int]
) -> None:
    images = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    box = (8 / 64, 16 / 64, 32 / 64, 32 / 64)
    top, left = 8 + 8 * row + 2, 16 + 8 * column + 1
    images[..., top : top + 4, left : left + 4] = 255
    expected = (8 * row + 4) / 32, (32 - (8 * column + 3) if flip else 8 * column + 3) / 32
    for resolution in resolutions:
        shown = render(images, at(box, flip=flip), resolution)[0, 0].double()
        centers = (torch.arange(resolution) + 0.5).double() / resolution
        found = (shown.sum(1) @ centers / shown.sum()).item(), (shown.sum(0) @ centers / shown.sum()).item()
        assert found == pytest.approx(expected, abs=0.03)


def test_a_low_resolution_is_drawn_from_the_original_not_from_a_higher_resolution() -> None:
    images, box = noise(1, 3, 48, 48), np.array([4, 7, 36, 30])
    view = at(tuple(box / 48))
    low, high = render(images, view, 12), render(images, view, 32)
    again = render((high * 255).round().to(torch.uint8), at(WHOLE), 12)
    assert (low - by_pil(images[0], box, 12)).abs().max() <= ROUNDING
    assert (low - again).abs().max() > 5 * ROUNDING


def by_others(image: Tensor, box: np.ndarray, resolution: int, interpolation: str) -> Tensor:
    """PIL's filter; torch's without antialiasing; the exact area by differences of an integral image."""
    if interpolation in FILTERS:
        return by_pil(image, box, resolution, interpolation)
    top, left, height, width = (int(x) for x in box)
    cut = image[:, top : top + height, left : left + width].double() / 255
    if interpolation == "bilinear_aliased":
        return F.interpolate(cut[None], size=(resolution, resolution), mode="bilinear", antialias=False)[0]
    sums = F.pad(cut.cumsum(1).cumsum(2), (1, 0, 1, 0))
    down, across = (np.linspace(0, side, resolution + 1) for side in (height, width))
    at = RegularGridInterpolator((np.arange(height + 1), np.arange(width + 1)), sums.permute(1, 2, 0).numpy())
    corners = at(np.stack(np.meshgrid(down, across, indexing="ij"), -1))
    areas = np.diff(np.diff(corners, axis=0), axis=1) / (height * width / resolution**2)
    return torch.from_numpy(areas).permute(2, 0, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "bilinear_aliased"])
@pytest.mark.parametrize(
    ("size", "resolution"), [((32, 32), 32), ((32, 32), 16), ((64, 64), 48), ((224, 224), 128), ((8, 8), 12), ((70, 90), 70)]
)
@pytest.mark.parametrize("small", [0, 4096])
def test_every_filter_is_that_of_others_in_the_loop_and_in_the_matrix_product(
    interpolation: Interpolation, size: tuple[int, int], resolution: int, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL", small)
    images = noise(12, 3, *size)
    tolerance = ROUNDING
    if interpolation == "bicubic":
        # The kernel's weights sum to 1.25 in absolute value, so PIL's first rounding counts as 0.625, its second as 0.5. PIL
        # also clips between its two passes, which we do not, so the contrast is kept low enough for nothing to overshoot.
        images, tolerance = images.clamp(48, 207), 1.13 / 255
    boxes = pixel_boxes(np.random.default_rng(1), *size, len(images))
    boxes[0] = 0, 0, *size
    flip = np.arange(12) % 2 == 0
    mine = render(images, View(boxes / [*size, *size], flip), resolution, interpolation=interpolation)
    for pixels, image, box, mirrored in zip(mine, images, boxes, flip, strict=True):
        theirs = by_others(image, box, resolution, interpolation)
        error = ((pixels.flip(-1) if mirrored else pixels) - theirs).abs()
        assert error.max() <= tolerance


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_without_antialiasing_only_shrinking_differs(interpolation: Interpolation) -> None:
    images, aliased = noise(2, 3, 16, 16), f"{interpolation}_aliased"
    larger, smaller = (
        [render(images, at(WHOLE, WHOLE), side, interpolation=how) for how in (interpolation, aliased)]  # type: ignore[arg-type]  # built
        for side in (24, 6)
    )
    assert torch.equal(*larger) and (smaller[0] - smaller[1]).abs().max() > 0.1


def test_bicubic_overshoots_at_an_edge_and_is_cut_to_the_range() -> None:
    images = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    images[..., 4:8] = 255
    images[..., 8:] = 128
    smooth = render(images, at(WHOLE), 32, interpolation="bicubic")
    assert smooth.min() == 0 and smooth.max() == 1
    theirs = by_pil(images[0], np.array([0, 0, 16, 16]), 32, "bicubic")
    assert (smooth[0] - theirs).abs().max() <= ROUNDING


random_views = st.lists(
    st.tuples(fractions, fractions, fractions, fractions, st.booleans(), st.integers(1, 90), st.integers(1, 90)),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(random_views, st.sampled_from(get_args(Interpolation)), st.sampled_from([4, 13, 80]))
def test_the_loop_the_matrix_product_and_the_workers_agree_on_any_images_and_boxes(
    drawn: list[tuple[float, float, float, float, bool, int, int]], interpolation: Interpolation, resolution: int
) -> None:
    sizes = [(height, width) for *_, height, width in drawn]
    images = [noise(3, *size, seed=i) for i, size in enumerate(sizes)]
    box = np.array([(top * (1 - height), left * (1 - width), height, width) for top, left, height, width, *_ in drawn])
    view = View(box, np.array([row[4] for row in drawn]))
    canvas = torch.zeros(len(images), 3, 90, 90, dtype=torch.uint8)
    for row, image in zip(canvas, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    done = []
    for small in (0, 4096):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "SMALL", small)
            done.append(render(canvas, view, resolution, torch.tensor(sizes), interpolation))
    torch.testing.assert_close(*done, rtol=0, atol=2e-6)
    assert done[0].isfinite().all() and done[0].min() >= 0 and done[0].max() <= 1 + 1e-6
    shipped = render_each(images, view, resolution, interpolation)
    assert shipped.dtype == torch.uint8
    assert torch.equal(shipped, (done[0] * 255).round().to(torch.uint8))


@pytest.mark.parametrize("side", [24, 100])
def test_an_examples_pixels_do_not_depend_on_the_rest_of_the_batch(side: int) -> None:
    images, rng = noise(9, 3, side, side), np.random.default_rng(0)
    extent = rng.uniform(0.05, 1, (9, 2))
    box = np.concatenate([rng.uniform(-0.5, 1.2 - extent), extent], 1)  # some reach out of their images, by different margins
    view = View(box, rng.uniform(size=9) < 0.5)
    together = render(images, view, 32)
    for i in range(9):
        alone = render(images[i : i + 1], View(box[i : i + 1], view.flip[i : i + 1]), 32)
        if side > module.SMALL:
            assert torch.equal(alone[0], together[i])
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=2e-7)


@settings(max_examples=100, deadline=None)
@given(st.tuples(fractions, fractions), st.tuples(fractions, fractions), st.sampled_from([(224, 57), (4, 64), (7, 13)]))
def test_the_coverage_of_a_box_has_its_area_at_every_resolution(
    extent: tuple[float, float], place: tuple[float, float], resolutions: tuple[int, int]
) -> None:
    corner = (place[0] * (1 - extent[0]), place[1] * (1 - extent[1]))
    box = torch.tensor([[*corner, *extent]], dtype=torch.float64)
    for resolution in resolutions:
        covered = coverage(box, resolution)
        assert covered.min() >= 0 and covered.max() <= 1
        assert covered.double().mean().item() == pytest.approx(extent[0] * extent[1], abs=1e-6)
