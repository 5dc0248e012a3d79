"""WebDataset tars are read by index: places, labels, names and splits; what is not one is said."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdx.data.source import BadImageError, check_splits
from kdx.data.webdataset import WebDataset
from kdx.ranges import ShapeError

Config = Callable[..., object]


def png(value: int, side: int = 8) -> bytes:
    """One color."""
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))


def samples(*values: int) -> dict[str, bytes]:
    """An image of each value, whose label is the value modulo 3."""
    return {
        name: content
        for value in values
        for name, content in ((f"s/{value:05d}.png", png(value)), (f"s/{value:05d}.cls", f"{value % 3}\n".encode()))
    }


@pytest.fixture
def source(tmp_path: Path) -> WebDataset:
    root = tmp_path / "wds"
    tar(root / "imagenet-train-000000.tar", samples(*range(10)))
    tar(root / "imagenet-train-000001.tar", {**samples(*range(10, 15)), "s/readme.txt": b"more", "s/x.json": b"{}"})
    tar(root / "imagenet-validation-00.tar", samples(20, 21))
    (root / "test").mkdir()
    tar(root / "test" / "00000.tar", samples(30))
    return WebDataset(str(root), cache=str(tmp_path / "cache"))


def test_images_labels_and_splits(source: WebDataset, tmp_path: Path) -> None:
    source.check()
    splits = source.splits()
    assert {name: len(images) for name, images in splits.items()} == {"train": 15, "val": 2, "test": 1}
    check_splits(source, splits)
    assert source.num_classes == 3 and source.names is None
    train = splits["train"]
    assert [int(train[i][0, 0, 0]) for i in (0, 9, 10, 14)] == [0, 9, 10, 14] and train[3].shape == (3, 8, 8)
    assert train.labels is not None and train.labels.tolist() == [value % 3 for value in range(15)]
    kept = list((tmp_path / "cache").glob("*.npz"))
    again = WebDataset(source.root, cache=source.cache)
    assert len(kept) == 4 and again.splits()["train"].fingerprint == train.fingerprint
    (tmp_path / "wds" / "classnames.txt").write_text("a\nb\nc\nd\n")
    assert WebDataset(source.root, cache=source.cache).num_classes == 4


def test_another_label_is_other_data(source: WebDataset, tmp_path: Path) -> None:
    before = source.splits()["val"].fingerprint
    tar(tmp_path / "wds" / "imagenet-validation-00.tar", {**samples(20, 21), "s/00021.cls": b"1"})
    assert WebDataset(source.root, cache=source.cache).splits()["val"].fingerprint != before


def test_a_damaged_image_is_named(source: WebDataset, tmp_path: Path) -> None:
    tar(tmp_path / "wds" / "imagenet-validation-00.tar", {"7.jpg": b"no image", "7.cls": b"0"})
    with pytest.raises(BadImageError, match=r"image 0, at byte 512 of .*validation-00.tar, cannot be decoded \(not an image\)"):
        WebDataset(source.root, cache=source.cache).splits()["val"][0]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"train-0.tar": {"1.jpg": b"x"}}, r"has image /1 without /1.cls. Expected layout"),
        ({"train-0.tar": {"1.cls": b"0"}}, "has no image"),
        ({"train-0.tar": {"1.jpg": b"x", "1.cls": b"cat"}}, "cannot be read as a WebDataset"),
        ({"part-0.tar": {"1.jpg": b"x"}}, "does not say which split it is of"),
        ({}, "contains no tar file"),
    ],
)
def test_what_is_no_webdataset_is_said(files: dict[str, dict[str, bytes]], told: str, tmp_path: Path) -> None:
    tmp_path.joinpath("wds").mkdir()
    for name, content in files.items():
        tar(tmp_path / "wds" / name, content)
    source = WebDataset(str(tmp_path / "wds"), cache=str(tmp_path / "cache"))
    with pytest.raises((ValueError, ShapeError), match=told):
        source.check() or source.splits()


def test_a_file_that_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ValueError, match=r"train-0.tar cannot be read as a WebDataset"):
        WebDataset(str(tmp_path), cache=str(tmp_path / "cache")).splits()


def test_a_run_on_tars(tmp_path: Path, train: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    tar(tmp_path / "wds" / "train-0.tar", samples(*rng.permutation(250)[:160].tolist()))
    words = ["experiment=supervised_digits", "data=webdataset", f"data.root={tmp_path / 'wds'}"]
    words += [f"data.source.cache={tmp_path / 'cache'}", "data.batch_size=16", "data.loader=streamed", "data.shuffle_buffer=32"]
    folder = train("run", *words, "resolution.student=8", "data.check_duplicates=false")
    assert (folder / "metrics.json").is_file()
