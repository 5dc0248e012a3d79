from __future__ import annotations

import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import ndimage, stats

from kdx.config.check import conf_dir
from kdx.data.corruptions import SEVERITIES, Blur, Contrast, Corrupted, Corruption, FewerPixels, Jpeg, Noise, gaussian
from kdx.data.source import ArrayImages, BadImageError, Images

STD = [0.08, 0.12, 0.18, 0.26, 0.38]
SIGMA = [1.0, 2.0, 3.0, 4.0, 6.0]
QUALITY = [25, 18, 15, 10, 7]
SHARE = [0.4, 0.3, 0.2, 0.1, 0.05]
ALL: dict[str, Corruption] = {"noise": Noise(STD), "blur": Blur(SIGMA, 224), "jpeg": Jpeg(QUALITY), "contrast": Contrast(SHARE)}


def photo(channels: int = 3, height: int = 61, width: int = 94) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (channels, height, width), np.uint8)


def test_shipped_constants_are_those_of_imagenet_c() -> None:
    found = {}
    for name in ALL:
        node = yaml.safe_load((conf_dir() / "shift" / f"{name}.yaml").read_text())[name]
        found[name] = {key: value for key, value in node.items() if key != "_target_"}
    assert found == {
        "noise": {"std": STD},
        "blur": {"sigma": SIGMA, "side": 224},
        "jpeg": {"quality": QUALITY},
        "contrast": {"share": SHARE},
    }


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 5, 17), (1, 1, 1), (3, 33, 2)])
@pytest.mark.parametrize("name", ALL)
def test_any_image_keeps_its_shape_and_type(name: str, shape: tuple[int, int, int]) -> None:
    for severity in SEVERITIES:
        changed = ALL[name].apply(photo(*shape), severity, 0, 3)
        assert changed.dtype == np.uint8 and changed.shape == shape


@pytest.mark.parametrize("name", ALL)
def test_the_original_is_left_alone(name: str) -> None:
    image = photo()
    before = image.copy()
    assert (ALL[name].apply(image, 5, 0, 0) != before).any()
    np.testing.assert_array_equal(image, before)


def test_noise_is_normal_and_has_the_standard_deviation_of_its_severity() -> None:
    assert stats.kstest(gaussian(0, 5, 20_001), "norm").pvalue > 0.01
    gray = np.full((3, 120, 121), 128, np.uint8)
    for severity in (1, 2):  # the others are clipped at black and white
        difference = ALL["noise"].apply(gray, severity, 0, 0).astype(float) - 128
        assert difference.std() == pytest.approx(255 * STD[severity - 1], rel=0.02)
        assert abs(difference.mean()) < 1


def test_noise_is_one_draw_scaled_by_severity_clipped_and_rounded() -> None:
    image = photo(1, 9, 9)
    drawn = gaussian(7, 4, 81).reshape(1, 9, 9)
    for severity in SEVERITIES:
        expected = np.clip(np.rint((image / 255 + STD[severity - 1] * drawn) * 255), 0, 255)
        difference = np.abs(ALL["noise"].apply(image, severity, 7, 4) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # 0.5 may round to either side


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_is_scipys(severity: int) -> None:
    image = photo()
    sigma = SIGMA[severity - 1] * 61 / 100  # the shorter side
    expected = np.stack([ndimage.gaussian_filter(c.astype(float), sigma, mode="nearest", truncate=4.0) for c in image])
    changed = Blur(SIGMA, 100).apply(image, severity, 0, 0)
    assert np.abs(changed - expected).max() <= 0.501


def test_blur_hides_the_same_share_of_large_and_small_images() -> None:
    large = np.zeros((1, 112, 112), np.uint8)
    large[:, 40:72, 40:72] = 200
    small = large[:, ::2, ::2]
    blurred = [Blur(SIGMA, 224).apply(image, 5, 0, 0).astype(float) for image in (large, small)]
    assert np.abs(blurred[0].reshape(56, 2, 56, 2).mean((1, 3)) - blurred[1][0]).max() < 12


def test_jpeg_is_a_round_trip_through_a_file_of_that_quality() -> None:
    for image, mode in ((photo(), "RGB"), (photo(1), "L")):
        for severity in SEVERITIES:
            file = io.BytesIO()
            pixels = image.transpose(1, 2, 0) if mode == "RGB" else image[0]
            Image.fromarray(pixels, mode=None).save(file, format="JPEG", quality=QUALITY[severity - 1])
            assert Image.open(file).mode == mode
            expected = np.asarray(Image.open(file))
            changed = ALL["jpeg"].apply(image, severity, 0, 0)
            np.testing.assert_array_equal(changed.transpose(1, 2, 0) if mode == "RGB" else changed[0], expected)


def test_contrast_is_the_formula_of_imagenet_c_by_channel() -> None:
    image = photo(3, 12, 15)
    for severity, share in zip(SEVERITIES, SHARE, strict=True):
        changed = ALL["contrast"].apply(image, severity, 0, 0)
        for channel in range(3):
            x = image[channel] / 255
            expected = np.clip((x - x.mean()) * share + x.mean(), 0, 1) * 255
            assert np.abs(changed[channel] - expected).max() <= 0.501


LIMITS: dict[str, Callable[[], Corruption]] = {
    "no noise": lambda: Noise([0] * 5),
    "no blur": lambda: Blur([0] * 5, 224),
    "all contrast": lambda: Contrast([1] * 5),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_corruption_of_no_strength_changes_nothing(limit: str) -> None:
    np.testing.assert_array_equal(LIMITS[limit]().apply(photo(), 3, 0, 0), photo())


def test_corruptions_of_all_strength_leave_nothing() -> None:
    image = photo(1, 30, 30)
    np.testing.assert_array_equal(Contrast([0] * 5).apply(image, 1, 0, 0), np.full_like(image, round(image.mean())))
    bars = np.zeros((1, 10, 200), np.uint8)
    bars[..., ::2] = 255  # of a period of 2 px
    assert set(np.unique(Blur([10] * 5, 10).apply(bars, 1, 0, 0)[..., 50:150])) <= {127, 128}


@pytest.mark.parametrize("name", ["noise", "jpeg", "contrast"])
def test_it_gets_worse_with_severity(name: str) -> None:
    y, x = np.mgrid[0:64, 0:64]
    image = np.stack([x * 2 + 60, y * 2 + 60, (x + y) + 60]).astype(np.uint8)
    errors = [np.square(ALL[name].apply(image, severity, 0, 0).astype(float) - image).mean() for severity in SEVERITIES]
    assert errors == sorted(errors) and errors[0] > 0


def many() -> ArrayImages:
    return ArrayImages(np.random.default_rng(1).integers(0, 256, (6, 1, 8, 8), np.uint8), np.arange(6))


def test_pixels_depend_on_seed_and_index_alone() -> None:
    images = Corrupted(many(), ALL["noise"], 3, seed=1)
    forwards = [images[i] for i in range(6)]
    backwards = [images[i] for i in reversed(range(6))][::-1]
    again = pickle.loads(pickle.dumps(images))  # as a worker gets them
    for one, two, i in zip(forwards, backwards, range(6), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, again[i])
    assert images.labels is not None and len(images) == 6
    np.testing.assert_array_equal(images.labels, np.arange(6))
    assert (Corrupted(many(), ALL["noise"], 3, seed=2)[0] != forwards[0]).any()
    same = ArrayImages(np.full((2, 1, 8, 8), 128, np.uint8), None)
    assert (Corrupted(same, ALL["noise"], 3)[0] != Corrupted(same, ALL["noise"], 3)[1]).any()


class Broken(Images):
    labels = None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> np.ndarray:
        raise BadImageError("cat.jpg cannot be decoded")


def test_an_image_that_cannot_be_decoded_stays_one() -> None:
    with pytest.raises(BadImageError, match=r"cat\.jpg"):
        Corrupted(Broken(), ALL["jpeg"], 1)[0]


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_severities_go_from_1_to_5(severity: int) -> None:
    with pytest.raises(ValueError, match=r"Invalid severity .*expected 1 to 5"):
        Corrupted(many(), ALL["noise"], severity)


BAD: dict[str, Callable[[], object]] = {
    "std": lambda: Noise(std=[0.1, 0.2]),
    "sigma": lambda: Blur(sigma=[1, 2, 3, 4, -5], side=224),
    "side": lambda: Blur(SIGMA, side=0),
    "quality": lambda: Jpeg(quality=[25, 18, 15, 10, 0]),
    "share": lambda: Contrast(share=[0.4, 0.3, 0.2, 0.1, 1.5]),
    "sides": lambda: FewerPixels(sides=[2]),
}


@pytest.mark.parametrize("key", BAD)
def test_constants_out_of_range_are_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        BAD[key]()


def test_fewer_pixels_are_halvings_or_the_given_sides() -> None:
    assert [(step.severity, step.side) for step in FewerPixels().steps(SEVERITIES, 32)] == [(1, 16), (2, 8), (3, 4)]
    assert FewerPixels().steps(SEVERITIES, 4) == []
    assert [(step.severity, step.side) for step in FewerPixels([5, 8]).steps([1], 8)] == [(1, 8), (2, 5)]
    images = many()
    assert FewerPixels([5]).steps([1], 8)[0].of(images, 0) is images
