"""Crops: boxes where they must be, with the distributions of the papers' and torchvision's rules."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from kdx.random import uniform
from kdx.views.crops import Center, Crop, Inception, Mild, Pad, Resize

Floats = NDArray[np.float64]
AREA, ASPECT = (0.05, 1.0), (3 / 4, 4 / 3)


def boxes(crop: Crop, height: int, width: int, count: int, seed: int = 0) -> Floats:
    """`count` boxes [count,4] drawn on images of one size."""
    return crop.boxes(uniform(seed, "view", 0, np.arange(count), crop.draws), np.tile([height, width], (count, 1)))


def shape(box: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Areas as fractions of the image and aspect ratios (width / height in px)."""
    return box[:, 2] * box[:, 3], box[:, 3] * width / (box[:, 2] * height)


sides = st.sampled_from([1, 8, 30, 31, 224, 600, 5000]) | st.integers(1, 1000)
crops = st.one_of(
    st.just(Resize()),
    st.builds(Center, st.floats(0.01, 1)),
    st.builds(Mild, st.floats(0.01, 1)),
    st.builds(Inception, st.sampled_from([(0.05, 1.0), (0.25, 1.0), (0.3, 0.3), (1.0, 1.0)]), law=st.just("side")),
    st.builds(Inception, st.sampled_from([(0.05, 1.0), (0.25, 1.0), (0.3, 0.3), (1.0, 1.0)]), law=st.just("area")),
)


@settings(max_examples=100, deadline=None)
@given(crops, sides, sides, st.integers())
def test_every_box_but_pads_lies_inside_the_image_whatever_its_shape(crop: Crop, height: int, width: int, seed: int) -> None:
    box = boxes(crop, height, width, 50, seed)
    assert (box[:, 2:] > 0).all()
    assert (box[:, :2] >= 0).all()
    assert (box[:, :2] + box[:, 2:] <= 1 + 1e-12).all()


@settings(max_examples=100, deadline=None)
@given(
    sides,
    sides,
    st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)),
    st.tuples(st.floats(0.3, 1), st.floats(1, 3)),
    st.integers(),
)
def test_an_inception_box_is_in_range_and_the_whole_image_only_where_every_aspect_leaves_no_room(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], seed: int
) -> None:
    box = boxes(Inception(area, aspect), height, width, 50, seed)
    areas, aspects = shape(box, height, width)
    within = lambda x, low, high: (x > low - 1e-9) & (x < high + 1e-9)  # noqa: E731 - short
    good = within(areas, *area) & within(aspects, *aspect)
    whole = (box == [0, 0, 1, 1]).all(1)
    least, most = aspect[0] * height / width, aspect[1] * height / width
    if abs(least * area[0] - 1) > 1e-9 and abs(most / area[0] - 1) > 1e-9:  # else rounding decides
        assert (good if least * area[0] < 1 and most > area[0] else whole).all()


def by_rejection(height: int, width: int, count: int) -> Floats:
    """TensorFlow's rule in px: uniform aspects until one leaves room, then heights until a box fits, its area in range."""
    rng, found = random.Random(0), []
    for _ in range(count):
        while True:
            aspect = rng.uniform(*ASPECT)
            tallest = min(height, width / aspect)
            if tallest**2 * aspect >= AREA[0] * height * width:
                break
        while True:
            h = rng.uniform(0, tallest)
            w = h * aspect
            if AREA[0] <= h * w / (height * width) <= AREA[1]:
                break
        found.append([rng.uniform(0, height - h) / height, rng.uniform(0, width - w) / width, h / height, w / width])
    return np.array(found)


def by_torchvision(height: int, width: int, count: int) -> Floats:
    """torchvision's RandomResizedCrop, as fractions of the image."""
    image = torch.empty(1, height, width, device="meta")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [RandomResizedCrop.get_params(image, list(AREA), list(ASPECT)) for _ in range(count)]
    return np.array(found) / [height, width, height, width]


@pytest.mark.parametrize("size", [(1024, 1024), (1500, 1000), (1000, 2500)])
@pytest.mark.parametrize(("law", "reference"), [("side", by_rejection), ("area", by_torchvision)])
def test_inception_boxes_have_the_distribution_of_an_independent_sampler(
    law: Literal["side", "area"], reference: Callable[[int, int, int], Floats], size: tuple[int, int]
) -> None:
    mine, theirs = boxes(Inception(AREA, ASPECT, law), *size, 20_000), reference(*size, 4000)
    for one, other in zip((*mine.T, *shape(mine, *size)), (*theirs.T, *shape(theirs, *size)), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


@pytest.mark.parametrize("size", [(30, 500), (500, 30), (40, 600), (600, 34)])
def test_where_some_aspects_leave_no_room_law_side_draws_among_the_others(size: tuple[int, int]) -> None:
    mine, theirs = boxes(Inception(AREA, ASPECT), *size, 20_000), by_rejection(*size, 4000)
    assert not (mine == [0, 0, 1, 1]).all(1).any()
    for one, other in zip((*mine.T, *shape(mine, *size)), (*theirs.T, *shape(theirs, *size)), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


@pytest.mark.parametrize(("size", "aspects"), [((30, 600), (1.0, 4 / 3)), ((600, 30), (3 / 4, 1.0))])
def test_a_strip_of_1_to_20_has_boxes_whose_aspect_fits_and_never_the_whole_strip(
    size: tuple[int, int], aspects: tuple[float, float]
) -> None:
    box = boxes(Inception(AREA, ASPECT), *size, 20_000)
    areas, drawn = shape(box, *size)
    assert areas.min() >= AREA[0] - 1e-9 and areas.max() <= 4 / 3 / 20 + 1e-9
    assert stats.kstest(drawn, stats.uniform(aspects[0], aspects[1] - aspects[0]).cdf).pvalue > 1e-3


@pytest.mark.parametrize("size", [(1024, 1024), (1000, 2500)])
def test_the_two_laws_of_inception_differ(size: tuple[int, int]) -> None:
    side, area = (shape(boxes(Inception(AREA, ASPECT, law), *size, 4000), *size) for law in ("side", "area"))
    assert stats.ks_2samp(side[0], area[0]).pvalue < 1e-6


@pytest.mark.parametrize("size", [(30, 600), (600, 30)])
def test_where_no_attempt_fits_law_area_falls_back_to_torchvisions_central_crop(size: tuple[int, int]) -> None:
    top, left, height, width = RandomResizedCrop.get_params(torch.empty(1, *size), [0.5, 1.0], list(ASPECT))
    expected = np.array([top, left, height, width]) / [*size, *size]
    np.testing.assert_allclose(boxes(Inception((0.5, 1.0), ASPECT, "area"), *size, 5), np.tile(expected, (5, 1)), atol=1e-9)


@pytest.mark.parametrize("size", [(30, 600), (600, 30)])
def test_where_no_box_fits_law_side_gives_the_whole_image(size: tuple[int, int]) -> None:
    assert (boxes(Inception((0.5, 1.0), ASPECT), *size, 5) == [0, 0, 1, 1]).all()


@pytest.mark.parametrize("size", [(256, 256), (256, 341), (500, 300)])
def test_center_is_the_central_224_of_an_image_whose_smaller_side_is_256(size: tuple[int, int]) -> None:
    side = 0.875 * min(size)
    top, left, height, width = boxes(Center(0.875), *size, 1)[0] * [*size, *size]
    assert (height, width) == pytest.approx((side, side))
    assert (top, left) == pytest.approx(((size[0] - side) / 2, (size[1] - side) / 2))


@pytest.mark.parametrize("size", [(160, 160), (31, 500)])
def test_mild_is_a_box_of_fixed_size_at_a_uniform_place(size: tuple[int, int]) -> None:
    box = boxes(Mild(), *size, 4000)
    assert (box[:, 2:] == 0.8).all()
    for corner in box[:, :2].T:
        assert stats.kstest(corner, stats.uniform(0, 0.2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(box[:, :2].T)[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("fraction", "size"), [(0.125, (32, 32)), (0.125, (8, 24)), (0.1, (30, 50)), (0, (32, 32)), (1, (4, 4))]
)
def test_pad_moves_the_whole_image_by_whole_pixels_uniformly(fraction: float, size: tuple[int, int]) -> None:
    box = boxes(Pad(fraction), *size, 4000)
    assert (box[:, 2:] == 1).all()
    for offset, side in zip(box[:, :2].T, size, strict=True):
        pad = math.floor(fraction * side + 0.5)
        moved, counts = np.unique(np.round(offset * side, 9), return_counts=True)
        np.testing.assert_array_equal(moved, np.arange(-pad, pad + 1))
        assert stats.chisquare(counts).pvalue > 1e-3 or pad == 0


def test_pads_two_offsets_are_independent() -> None:
    top, left = boxes(Pad(0.25), 32, 32, 10_000)[:, :2].T
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.04


@pytest.mark.parametrize(
    ("crop", "arguments", "complaint"),
    [
        (Inception, {"area": (0.5, 0.1)}, "area must be an interval"),
        (Inception, {"area": (0.5, 1.1)}, "area must be an interval"),
        (Inception, {"area": (0.0, 1.0)}, "area"),
        (Inception, {"area": (math.nan, 1.0)}, "area"),
        (Inception, {"aspect": (2.0, 0.5)}, "aspect must be an interval"),
        (Inception, {"aspect": (0.5, math.inf)}, "aspect"),
        (Inception, {"law": "x"}, "law"),
        (Center, {"fraction": 0}, "fraction"),
        (Center, {"fraction": 2}, "fraction"),
        (Mild, {"fraction": 0}, "fraction"),
        (Mild, {"fraction": 1.1}, "fraction"),
        (Pad, {"fraction": -0.1}, "fraction"),
        (Pad, {"fraction": 1.5}, "fraction"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(crop: type[Crop], arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        crop(**arguments)
