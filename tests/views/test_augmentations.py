"""Augmentations: torchvision's pixels, one picture at two resolutions, pure in the numbers, gray images included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as tv
from scipy import stats
from torch import Tensor

from kdx.random import uniform
from kdx.views.augmentations import Augmentation, Chain, ColorJitter, GaussianBlur, RandAugment, RandomErasing

JITTER = ColorJitter(0.4, 0.5, 0.6, 0.2)
EVERY: list[Augmentation] = [
    JITTER,
    RandomErasing(0.7),
    GaussianBlur(),
    RandAugment(),
    Chain([ColorJitter(), RandomErasing(1.0)]),
]


def numbers(augmentation: Augmentation, count: int, seed: int = 0) -> np.ndarray:
    return uniform(seed, "augmentation", 0, np.arange(count), augmentation.draws)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def smooth(count: int, resolution: int) -> Tensor:
    """One colorful function of the place, [count,3,R,R]: means over the pixels, so resolutions agree."""
    steps = torch.arange(512) / 512
    waves = torch.stack([torch.sin(6 * steps[:, None] + k) * torch.cos(5 * steps[None] - k) for k in range(3)])
    fine = (0.5 + 0.4 * waves).expand(count, 3, 512, 512)
    return torch.nn.functional.avg_pool2d(fine, 512 // resolution)


@pytest.mark.parametrize("augmentation", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_augmentation_is_pure_keeps_shape_and_range_and_takes_each_image_for_itself(
    augmentation: Augmentation, channels: int
) -> None:
    images = noise(12, channels, 24, 24)
    before, drawn = images.clone(), numbers(augmentation, 12)
    done = augmentation.apply(images, drawn)
    assert torch.equal(images, before)
    assert done.shape == images.shape and done.dtype == images.dtype
    assert done.min() >= -1e-6 and done.max() <= 1 + 1e-6
    torch.testing.assert_close(augmentation.apply(images[3:5], drawn[3:5]), done[3:5], rtol=0, atol=1e-6)
    assert not torch.equal(done, images)


@pytest.mark.parametrize("augmentation", [JITTER, RandomErasing(1.0), GaussianBlur(), Chain([JITTER, RandomErasing(1.0)])])
def test_the_same_numbers_show_the_same_picture_at_two_resolutions(augmentation: Augmentation) -> None:
    drawn = numbers(augmentation, 16)
    high, low = (augmentation.apply(smooth(16, resolution), drawn) for resolution in (256, 64))
    assert (torch.nn.functional.avg_pool2d(high, 4) - low).abs().mean((1, 2, 3)).max() < 2e-3


def test_color_jitter_is_torchvisions_four_adjustments_in_order() -> None:
    images, drawn = noise(20, 3, 16, 16), numbers(JITTER, 20)
    images[0, :] = 0.3  # no color
    done = JITTER.apply(images, drawn)
    for image, row, mine in zip(images, drawn, done, strict=True):
        theirs = tv.adjust_brightness(image, 0.6 + 0.8 * row[0])
        theirs = tv.adjust_contrast(theirs, 0.5 + 1.0 * row[1])
        theirs = tv.adjust_saturation(theirs, 0.4 + 1.2 * row[2])
        theirs = tv.adjust_hue(theirs, -0.2 + 0.4 * row[3])
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_color_jitter_of_gray_images_leaves_saturation_and_hue_out() -> None:
    images, drawn = noise(8, 1, 16, 16), numbers(JITTER, 8)
    for image, row, mine in zip(images, drawn, JITTER.apply(images, drawn), strict=True):
        theirs = tv.adjust_contrast(tv.adjust_brightness(image, 0.6 + 0.8 * row[0]), 0.5 + 1.0 * row[1])
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_color_jitter_of_nothing_changes_nothing_and_a_factor_is_never_negative() -> None:
    images = noise(8, 3, 16, 16)
    still = ColorJitter(0, 0, 0, 0)
    torch.testing.assert_close(still.apply(images, numbers(still, 8)), images, rtol=0, atol=1e-6)
    wild = ColorJitter(brightness=3)
    assert ColorJitter(3, 0, 0, 0).apply(images, np.zeros((8, wild.draws))).abs().max() == 0


@pytest.mark.parametrize("resolution", [32, 224])
def test_blur_is_torchvisions_with_sigma_scaled_to_the_resolution(resolution: int) -> None:
    blur, images = GaussianBlur((0.5, 4.0)), noise(4, 3, resolution, resolution)
    drawn = numbers(blur, 4)
    kernel = 2 * math.ceil(3 * 4.0 * resolution / 224) + 1
    for image, row, mine in zip(images, drawn, blur.apply(images, drawn), strict=True):
        sigma = (0.5 + 3.5 * row[0]) * resolution / 224
        torch.testing.assert_close(mine, tv.gaussian_blur(image, [kernel, kernel], [sigma, sigma]), rtol=0, atol=1e-5)


def test_random_erasing_turns_a_box_of_the_drawn_area_gray_with_its_probability() -> None:
    erase = RandomErasing(0.4, area=(0.1, 0.3), aspect=(0.5, 2.0))
    drawn = numbers(erase, 2000)
    changed = erase.apply(torch.zeros(2000, 1, 40, 40), drawn)
    area = 2 * changed.double().mean((1, 2, 3)).numpy()
    assert (area > 0).mean() == pytest.approx(0.4, abs=0.04)
    assert stats.kstest(area[area > 0], stats.uniform(0.1, 0.2).cdf).pvalue > 1e-3
    assert changed.max() == 0.5


def test_where_erasing_falls_every_place_is_alike_likely() -> None:
    erase = RandomErasing(1.0, area=(0.25, 0.25), aspect=(1.0, 1.0))
    share = 2 * erase.apply(torch.zeros(4000, 1, 8, 8), numbers(erase, 4000)).mean(0)[0]
    torch.testing.assert_close(share, share.flip(0), rtol=0, atol=0.05)
    torch.testing.assert_close(share, share.T, rtol=0, atol=0.05)


NAMES = {
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY",
    "rotate": "Rotate", "brightness": "Brightness", "saturation": "Color", "contrast": "Contrast", "sharpness": "Sharpness",
    "posterize": "Posterize", "solarize": "Solarize", "autocontrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip


@pytest.mark.parametrize("magnitude", [0, 5, 9, 17, 30])
@pytest.mark.parametrize("operation", RandAugment.operations)
def test_randaugments_operations_are_torchvisions(operation: str, magnitude: int) -> None:
    image = (noise(3, 40, 40) * 255).to(torch.uint8)
    reference = v2.RandAugment(num_ops=1, magnitude=magnitude)
    reference._AUGMENTATION_SPACE = {NAMES[operation]: reference._AUGMENTATION_SPACE[NAMES[operation]]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [reference(image) for _ in range(12)]  # both signs
    mine = [RandAugment(1, magnitude).operate(operation, image, sign) for sign in (-1, 1)]
    # torchvision keeps magnitudes in float32, which moves a value across an integer now and then
    rounding = 1 if operation in ("brightness", "saturation", "contrast", "sharpness") else 0
    for one in mine:
        assert min((one.int() - other.int()).abs().max().item() for other in theirs) <= rounding
    for other in theirs:
        assert min((one.int() - other.int()).abs().max().item() for one in mine) <= rounding


def test_randaugment_does_the_operations_that_its_numbers_name() -> None:
    augment, image = RandAugment(2, 9), noise(1, 3, 32, 32)
    at = {name: (i + 0.5) / 14 for i, name in enumerate(RandAugment.operations)}
    done = augment.apply(image, np.array([[at["rotate"], 0.2, at["solarize"], 0.9]]))
    eight_bit = (image[0] * 255).round().to(torch.uint8)
    theirs = tv.solarize(tv.rotate(eight_bit, -9.0), 255 * 0.7)
    assert torch.equal((done[0] * 255).round().to(torch.uint8), theirs)


def test_a_chain_gives_each_link_its_own_numbers_and_an_empty_one_does_nothing() -> None:
    jitter, erase, images = ColorJitter(), RandomErasing(1.0), noise(6, 3, 16, 16)
    chain = Chain([jitter, erase])
    drawn = numbers(chain, 6)
    assert chain.draws == 9
    assert torch.equal(chain.apply(images, drawn), erase.apply(jitter.apply(images, drawn[:, :4]), drawn[:, 4:]))
    assert torch.equal(Chain([]).apply(images, np.zeros((6, 0))), images)


@pytest.mark.parametrize(
    ("kind", "arguments", "complaint"),
    [
        (ColorJitter, {"hue": 0.6}, "hue"),
        (ColorJitter, {"brightness": -1}, "brightness"),
        (RandomErasing, {"probability": 2}, "probability"),
        (RandomErasing, {"area": (0.5, 0.1)}, "area"),
        (RandomErasing, {"area": (0.5, 1.5)}, "area"),
        (RandomErasing, {"aspect": (2.0, 1.0)}, "aspect"),
        (GaussianBlur, {"sigma": (2.0, 1.0)}, "sigma"),
        (GaussianBlur, {"sigma": (0.0, 1.0)}, "sigma"),
        (RandAugment, {"magnitude": 31}, "magnitude"),
        (RandAugment, {"magnitude": -1}, "magnitude"),
        (RandAugment, {"num_ops": 0}, "num_ops"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(
    kind: type[Augmentation], arguments: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        kind(**arguments)
