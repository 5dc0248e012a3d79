"""Decoded pixels against values computed by hand, whatever the file's mode; damaged files against their message."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch.utils.data import DataLoader

from kdx.data import shards
from kdx.data.cache import key
from kdx.data.decoding import ImageFiles, Paths, decode_image, fault, header_fault
from kdx.data.source import BadImageError, Decoding, Joined, Subset, set_decoding
from kdx.types import View
from kdx.views.render import render

RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [255, 255, 255], [0, 0, 0]]], np.uint8)  # [H,W,C]
GRAY = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)


def luma(pixels: np.ndarray) -> np.ndarray:
    """ITU-R 601, as PIL."""
    return np.round(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def decoded(path: Path, image: Image.Image, channels: int = 3, **options: object) -> np.ndarray:
    image.save(path, **options)
    pixels = decode_image(str(path), channels)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable
    assert len(pixels) == channels
    return pixels


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm"])
def test_rgb_is_read_as_it_is_and_gray_is_its_luma(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"image.{ending}"
    np.testing.assert_array_equal(decoded(path, Image.fromarray(RGB)), RGB.transpose(2, 0, 1))
    np.testing.assert_allclose(decoded(path, Image.fromarray(RGB), 1)[0], luma(RGB), atol=1)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "pgm", "gif"])
def test_gray_is_repeated_over_the_channels(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"image.{ending}"
    np.testing.assert_array_equal(decoded(path, Image.fromarray(GRAY)), np.stack([GRAY] * 3))
    np.testing.assert_array_equal(decoded(path, Image.fromarray(GRAY), 1), GRAY[None])


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_one_bit_is_black_and_white(tmp_path: Path, ending: str) -> None:
    bits = Image.fromarray(GRAY).point(lambda value: 255 * (value > 127)).convert("1")
    expected = np.array([[0, 0, 0], [255, 255, 255]])
    for channels in (1, 3):
        np.testing.assert_array_equal(decoded(tmp_path / f"i.{ending}", bits, channels), np.stack([expected] * channels))


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
def test_palette_is_looked_up_and_its_transparency_dropped(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([9, 8, 7, 100, 150, 200, 0, 255, 1])
    options = {} if transparency is None else {"transparency": transparency}
    found = decoded(tmp_path / "image.png", image, **options)
    np.testing.assert_array_equal(found.transpose(1, 2, 0), [[[9, 8, 7], [100, 150, 200], [0, 255, 1]]])
    gray = decoded(tmp_path / "image.png", image, 1, **options)
    np.testing.assert_allclose(gray[0], luma(found.transpose(1, 2, 0)), atol=1)


def test_alpha_is_dropped_and_shows_what_it_hid(tmp_path: Path) -> None:
    alpha = np.array([[0, 128, 255], [255, 0, 1]], np.uint8)
    both = Image.fromarray(np.dstack([RGB, alpha]))
    np.testing.assert_array_equal(decoded(tmp_path / "image.png", both), RGB.transpose(2, 0, 1))
    np.testing.assert_array_equal(decoded(tmp_path / "image.png", both), np.asarray(both.convert("RGB")).transpose(2, 0, 1))
    gray = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(alpha)])
    np.testing.assert_array_equal(decoded(tmp_path / "gray.png", gray), np.stack([GRAY] * 3))
    np.testing.assert_array_equal(decoded(tmp_path / "gray.png", gray, 1), GRAY[None])


def test_cmyk_is_ink_on_white(tmp_path: Path) -> None:
    ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255], [51, 0, 0, 102]]], np.uint8)
    expected = [[[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0], [122, 153, 153]]]  # 255 * (1 - C) * (1 - K)
    found = decoded(tmp_path / "image.tif", Image.fromarray(ink, "CMYK"))
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected, atol=1)
    plain = Image.new("CMYK", (16, 16), (51, 0, 0, 102))  # JPEG: stored inverted, as Adobe does
    found = decoded(tmp_path / "image.jpg", plain, quality=100)
    np.testing.assert_allclose(found.reshape(3, -1).mean(1), [122, 153, 153], atol=2)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = np.round(deep / 257).astype(np.uint8)  # 0 0 1 1 128 255
    for name in ("image.png", "image.tif", "image.pgm"):
        for channels in (1, 3):
            found = decoded(tmp_path / name, Image.fromarray(deep), channels)
            np.testing.assert_array_equal(found, np.stack([expected] * channels))
    big_endian = Image.fromarray(deep.astype(">u2"))
    np.testing.assert_array_equal(decoded(tmp_path / "big.tif", big_endian, 1)[0], expected)
    wide = Image.fromarray(deep.astype(np.int32))
    assert wide.mode == "I"
    np.testing.assert_array_equal(decoded(tmp_path / "wide.tif", wide, 1)[0], expected)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exif_turns_the_image_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    """A bright top left corner of what was seen, wherever the camera's chip had it. 0 and 9 mean nothing."""
    seen = np.zeros((16, 24, 3), np.uint8)
    seen[:8, :8] = 255
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = inverse
    source = Image.fromarray(seen)
    source.getexif()[0x0112] = inverse
    stored = ImageOps.exif_transpose(source)
    exif[0x0112] = orientation
    options = {"quality": 100} if ending in ("jpg", "webp") else {}
    found = decoded(tmp_path / f"image.{ending}", stored, exif=exif, **options)
    np.testing.assert_allclose(found.transpose(1, 2, 0), seen, atol=20)
    if orientation == 6:
        assert stored.size == (16, 24)
        np.testing.assert_array_equal(np.asarray(stored)[:8, :8], 0)  # it is really stored in another way
    with Image.open(tmp_path / f"image.{ending}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(found.transpose(1, 2, 0), expected)


def test_sixteen_bit_images_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decoded(tmp_path / "image.png", Image.fromarray(np.array([[0, 65535]], np.uint16)), 1, exif=exif)
    np.testing.assert_array_equal(found, [[[0], [255]]])


def test_damaged_exif_does_not_spoil_the_pixels(tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n4\nno hexadecimal number")
    np.testing.assert_array_equal(decoded(tmp_path / "image.png", Image.fromarray(RGB), pnginfo=text), RGB.transpose(2, 0, 1))
    with Image.open(tmp_path / "image.png") as image, pytest.raises(ValueError, match="hex"):
        image.getexif()


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    found = decoded(tmp_path / "image.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(found[:, 0, 0], [255, 0, 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_one_pixel_is_an_image_and_its_views_are_finite(tmp_path: Path, channels: int) -> None:
    found = decoded(tmp_path / "image.png", Image.new("RGB", (1, 1), (7, 7, 7)), channels)
    assert found.shape == (channels, 1, 1) and (found == 7).all()
    view = View(np.array([[0.1, 0.2, 0.05, 0.7]]), np.array([True]))
    seen = render(torch.from_numpy(found)[None], view, 8)
    torch.testing.assert_close(seen, torch.full((1, channels, 8, 8), 7 / 255))


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


def floats() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ones((2, 2), np.float32)).save(out, "TIFF")
    return out.getvalue()


def wide() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(out, "TIFF")
    return out.getvalue()


BAD = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is not an image", "not an image"),
    "truncated jpeg": (jpeg()[:1500], "truncated"),
    "truncated png": (png()[:3000], ""),
    "header only": (png()[:20], ""),
    "damaged png": (png()[:200] + bytes(100) + png()[300:], ""),
    "floats": (floats(), "unknown pixel range: expected integers of at most 16 bits, got floats"),
    "wide integers": (wide(), "expected integers of at most 16 bits, got larger values"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_file_is_named_with_reason_and_remedy(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImageError) as told:
        decode_image(str(path), 3)
    message = str(told.value)
    assert message.startswith(f"{path} cannot be decoded (") and reason in message and "\n" not in message
    assert message.endswith("copy it again, or use data.on_bad_image=skip")


def test_missing_file_and_folder_are_bad_images(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="No such file"):
        decode_image(str(tmp_path / "nowhere.png"), 3)
    with pytest.raises(BadImageError, match="directory"):
        decode_image(str(tmp_path), 3)


def test_no_cut_of_a_file_passes_as_another_image(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    for whole in (png(), jpeg()):
        path.write_bytes(whole)
        expected, refused = decode_image(str(path), 3), 0
        for length in range(0, len(whole), 97):
            path.write_bytes(whole[:length])
            try:
                np.testing.assert_array_equal(decode_image(str(path), 3), expected)  # only the end mark is lost
            except BadImageError:
                refused += 1
        assert refused >= len(whole) // 97 - 1


def files(tmp_path: Path) -> ImageFiles:
    paths = []
    for i in range(6):
        paths.append(str(tmp_path / f"Bild {i} größer.png"))
        Image.new("RGB", (4 + i, 4), (i, 2 * i, 3 * i)).save(paths[-1])
    return ImageFiles(paths, [0, 1, 2, 0, 1, 2], 3)


def test_image_files_decode_when_asked_and_know_their_paths(tmp_path: Path) -> None:
    images = files(tmp_path)
    assert len(images) == 6 and images.path(4) == str(tmp_path / "Bild 4 größer.png")
    assert images[4].shape == (3, 4, 8) and images[4][:, 0, 0].tolist() == [4, 8, 12]
    assert images.labels is not None and images.labels.dtype == np.int64
    assert len(ImageFiles([], None, 3)) == 0 and ImageFiles([], None, 3).labels is None


def first(batch: list[np.ndarray]) -> np.ndarray:
    return batch[0]


def test_image_files_work_in_workers(tmp_path: Path) -> None:
    images = files(tmp_path)
    copy = pickle.loads(pickle.dumps(images))
    loader = DataLoader(images, batch_size=1, num_workers=2, collate_fn=first, timeout=300)
    for i, pixels in enumerate(loader):
        np.testing.assert_array_equal(pixels, images[i])
        np.testing.assert_array_equal(copy[i], images[i])


def test_bad_image_keeps_its_message_when_it_comes_from_a_worker(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(png()[:500])
    images = ImageFiles([str(tmp_path / "bad.png")], None, 3)
    loader = DataLoader(images, batch_size=1, num_workers=1, collate_fn=first, timeout=300)
    with pytest.raises(BadImageError, match=r"bad\.png cannot be decoded"):
        next(iter(loader))


def test_a_file_with_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (60, 50)).save(tmp_path / "big.png")
    images = Joined([Subset(ImageFiles([str(tmp_path / "big.png")], None, 1), np.array([0]))])
    set_decoding(images, Decoding(3000))
    assert images[0].shape == (1, 50, 60)
    set_decoding(images, Decoding(2900))
    with pytest.raises(
        BadImageError, match=r"big.png cannot be decoded \(60x50 px are more than data.max_megapixels=0.0029\): "
    ):
        images[0]
    for look in (fault, header_fault):
        assert look(str(tmp_path / "big.png"), Decoding(2900)) == ("60x50 px are more than data.max_megapixels=0.0029", False)
    with pytest.raises(ValueError, match="60x50 px are more than"):
        shards.decoded((tmp_path / "big.png").read_bytes(), Decoding(2900))
    for limit in (1000, 2000):  # of PIL: an error, and a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(BadImageError, match=r"more pixels than data.max_megapixels allows"):
            decode_image(str(tmp_path / "big.png"), 1)
    allowed = Decoding(3000)  # data.max_megapixels may exceed PIL's
    assert decode_image(str(tmp_path / "big.png"), 1, allowed).shape == (1, 50, 60)


def waves(height: int, width: int) -> np.ndarray:
    """A smooth image [H,W,3], of which a JPEG loses little."""
    y, x = np.mgrid[:height, :width] / 50
    return np.stack([128 + 100 * np.sin(y + x), 128 + 100 * np.cos(x), 128 + 100 * np.sin(2 * y)], -1).astype(np.uint8)


@pytest.mark.parametrize(("jpeg_px", "scale"), [(None, 1), (401, 1), (400, 2), (201, 2), (200, 4), (100, 8), (16, 8)])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_keeps_so_many_pixels(
    tmp_path: Path, jpeg_px: int | None, scale: int
) -> None:
    pixels = waves(800, 960)
    Image.fromarray(pixels).save(tmp_path / "i.jpg", quality=95, subsampling=0)
    found = decode_image(str(tmp_path / "i.jpg"), 3, Decoding(None, jpeg_px))
    means = pixels.reshape(800 // scale, scale, 960 // scale, scale, 3).mean((1, 3)).transpose(2, 0, 1)
    assert found.shape == means.shape
    assert np.abs(found - means).mean() < 1
    np.testing.assert_array_equal(found, shards.decoded((tmp_path / "i.jpg").read_bytes(), Decoding(None, jpeg_px)))


def test_other_formats_are_decoded_whole_and_a_reduced_data_set_has_another_key(tmp_path: Path) -> None:
    for name in ("i.png", "i.jpg"):
        Image.fromarray(waves(40, 64)).rotate(90, expand=True).save(tmp_path / name)
    images = Joined([ImageFiles([str(tmp_path / "i.png"), str(tmp_path / "i.jpg")], None, 3)])
    before = key(images, "train")
    set_decoding(images, Decoding(10**6, 20))
    assert [images[i].shape for i in range(2)] == [(3, 64, 40), (3, 32, 20)]
    assert key(images, "train") != before
    set_decoding(images, Decoding(10**6))
    assert key(images, "train") == before


def test_paths_are_kept_as_they_are(tmp_path: Path) -> None:
    given = ["a/b/1.png", "1.png", "a/b/ü 2.png", "/root/c/.jpg", "a/1.png", os.fsdecode(b"a/\xff.png")]
    paths = Paths(iter(given))
    assert [os.fsdecode(path) for path in paths] == given and paths[-1] == b"a/\xff.png" and paths[np.int64(1)] == b"1.png"
    with pytest.raises(IndexError):
        paths[len(given)]
