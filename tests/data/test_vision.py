"""Each public data set is read back, image by image and label by label, from the format it is published in."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import formats
import numpy as np
import pytest

from kdx.data import vision
from kdx.data.cifar import read_batch
from kdx.data.source import Images, SplitName
from kdx.data.splits import carve
from kdx.data.vision import VisionSource

WRITERS: dict[type[VisionSource], Callable[[Path, pytest.MonkeyPatch], formats.Written]] = {
    vision.Cifar10: formats.write_cifar10,
    vision.Cifar100: formats.write_cifar100,
    vision.FashionMnist: formats.write_fashion_mnist,
    vision.Flowers102: formats.write_flowers102,
    vision.Pets: lambda root, patch: formats.write_pets(root),
    vision.Food101: lambda root, patch: formats.write_food101(root),
    vision.Sun397: lambda root, patch: formats.write_sun397(root),
}
LOSSLESS = (vision.Cifar10, vision.Cifar100, vision.FashionMnist)
every = pytest.mark.parametrize("source", WRITERS, ids=lambda source: source.__name__)


def assert_read(found: Mapping[SplitName, Images], written: formats.Written, tolerance: int, num_classes: int) -> None:
    assert set(found) == set(written)
    for name, images in found.items():
        pixels, labels = written[name]
        assert images.labels is not None and images.labels.dtype == np.int64 and len(images) == len(pixels)
        np.testing.assert_array_equal(images.labels, labels)
        assert set(labels) <= set(range(num_classes))
        for i, expected in enumerate(pixels):
            assert images[i].dtype == np.uint8 and images[i].shape == expected.shape
            assert np.abs(images[i].astype(int) - expected).max() <= tolerance


@every
def test_every_image_and_label_is_read_back(
    source: type[VisionSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = WRITERS[source](tmp_path, monkeypatch)
    data = source(str(tmp_path))
    data.check()
    splits = data.splits()
    assert_read(splits, written, 0 if source in LOSSLESS else 4, data.num_classes)
    assert splits["train"][0].shape[0] == data.channels == len(data.mean) == len(data.std)


@every
def test_images_travel_to_workers(source: type[VisionSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[source](tmp_path, monkeypatch)
    for images in source(str(tmp_path)).splits().values():
        copy = pickle.loads(pickle.dumps(images))
        np.testing.assert_array_equal(copy[len(images) - 1], images[len(images) - 1])


@every
def test_val_is_carved_from_all_classes_where_there_is_none(
    source: type[VisionSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[source](tmp_path, monkeypatch)
    own = source(str(tmp_path)).splits()
    splits = carve(own, val=0.5, test=0.2, train_size=None, seed=0)
    if "val" not in own:
        labels = splits["val"].labels
        assert labels is not None and labels.min() < source.num_classes / 4 and labels.max() > source.num_classes / 5
        assert len(np.unique(labels)) >= min(source.num_classes, len(own["train"])) * 0.4


@every
@pytest.mark.parametrize("root", [None, "nowhere", "empty"])
def test_missing_data_are_told_with_layout_and_remedy(source: type[VisionSource], root: str | None, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    where = None if root is None else str(tmp_path / root)
    with pytest.raises(ValueError) as told:
        source(where).check()
    assert source.layout in str(told.value) and "data.download=true" in str(told.value)
    assert (where or "data.root") in str(told.value)
    with pytest.raises(ValueError, match=r"data.root"):
        source(None, download=True).check()
    source(str(tmp_path / "nowhere"), download=True).check()


@every
def test_checking_does_not_import_torchvision(source: type[VisionSource], tmp_path: Path) -> None:
    code = (
        f"import sys; from kdx.data.vision import {source.__name__} as S\n"
        "try: S('/nowhere').check()\nexcept ValueError: print('torchvision' in sys.modules)"
    )
    if source is vision.Pets:  # one stands for all: the module is the same
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


def test_download_finds_what_is_there_and_unpacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = formats.write_fashion_mnist(tmp_path, monkeypatch, packed=True)
    with pytest.raises(ValueError, match="ubyte not found"):
        vision.FashionMnist(str(tmp_path)).check()
    assert_read(vision.FashionMnist(str(tmp_path), download=True).splits(), written, 0, 10)
    assert_read(vision.FashionMnist(str(tmp_path)).splits(), written, 0, 10)


@pytest.mark.parametrize("source", [vision.Cifar10, vision.Cifar100, vision.Flowers102, vision.Sun397])
def test_failed_download_is_told_with_its_remedy(
    source: type[VisionSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.request

    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(ValueError, match=r"Cannot download .*no route to host.*copy it there by hand"):
        source(str(tmp_path / "new"), download=True).splits()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_download_into_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="use a writable folder"):
        vision.Cifar10(str(tmp_path / "new"), download=True).splits()


def test_root_that_is_a_file_cannot_be_downloaded_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="use a writable folder"):
        vision.Cifar10(str(tmp_path / "file"), download=True).splits()


def test_damaged_cifar_batch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write_cifar10(tmp_path, monkeypatch)
    with (tmp_path / "cifar-10-batches-py" / "data_batch_3").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"data_batch_3 is damaged or a variant .*data.download=true, or .*data.verify=false"):
        vision.Cifar10(str(tmp_path)).splits()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", ["list", "array", "numbers", "bytes as keys"])
def test_variants_of_cifar_are_read_without_checksums(protocol: int, kind: str, tmp_path: Path) -> None:
    """Fewer images with other labels, as people write them with Python 3 and numpy 1 or 2."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3072), np.uint8)
    labels = np.array([3, 1, 4, 1, 5, 9])
    written = {"array": labels, "numbers": list(labels)}.get(kind, labels.tolist())
    batch = {"data": pixels, "labels": written, "noise": "symmetric"}
    batch = {name.encode(): value for name, value in batch.items()} if kind.startswith("bytes") else batch
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    splits = vision.Cifar10(str(tmp_path), verify=False).splits()
    np.testing.assert_array_equal(splits["train"].labels, np.tile(labels, 5))
    np.testing.assert_array_equal(splits["test"][4], pixels[4].reshape(3, 32, 32))
    with pytest.raises(ValueError, match=r"data.verify=false"):
        vision.Cifar10(str(tmp_path)).splits()
    (folder / "test_batch").write_bytes(pickle.dumps({"data": Evil(tmp_path / "harm")}, protocol))
    with pytest.raises(ValueError, match=r"forbidden global posix.mkdir"):
        vision.Cifar10(str(tmp_path), verify=False).splits()
    assert not (tmp_path / "harm").exists()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "content", ["evil", {"data": np.zeros((1, 5), np.uint8)}, {"data": np.zeros((1, 3072)), "labels": [0]}, {}, [], "text"]
)
def test_nothing_but_arrays_is_unpickled(content: object, tmp_path: Path) -> None:
    """Even when the checksum is right."""
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": Evil(tmp_path / "harm")} if content == "evil" else content, 2))
    with pytest.raises(ValueError, match=r"data_batch_1 is not a CIFAR batch .*data.download=true"):
        read_batch(path, formats.md5(path), "labels")
    assert not (tmp_path / "harm").exists()


def test_labels_out_of_range_and_lists_without_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write_pets(tmp_path)
    annotations = tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt"
    annotations.write_text("Breed_36_3736 38 1 1\n")
    with pytest.raises(ValueError, match=r"test of Pets has label 37, out of range 0 to 36: delete .*data.download=true"):
        vision.Pets(str(tmp_path)).splits()
    annotations.write_text("Breed_36_3736\n")
    with pytest.raises(ValueError, match=r"Cannot read Pets .*: delete .*annotations and use data.download=true"):
        vision.Pets(str(tmp_path)).splits()
    annotations.write_text("")
    with pytest.raises(ValueError, match="test of Pets has 0 images"):
        vision.Pets(str(tmp_path)).splits()


def test_fashion_mnist_with_fewer_labels_than_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write_fashion_mnist(tmp_path, monkeypatch)
    labels = tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(bytes.fromhex("0000080100000003") + bytes(3))
    with pytest.raises(ValueError, match="has 40 images and 3 labels"):
        vision.FashionMnist(str(tmp_path)).splits()
    images = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-5])
    with pytest.raises(ValueError, match="Cannot read FashionMnist"):
        vision.FashionMnist(str(tmp_path)).splits()


def test_missing_image_of_a_list_is_a_bad_image(tmp_path: Path) -> None:
    formats.write_food101(tmp_path)
    images = vision.Food101(str(tmp_path)).splits()["train"]
    path = images.path(3)
    os.remove(path)
    with pytest.raises(ValueError, match=r"No such file.*data.on_bad_image=skip") as told:
        images[3]
    assert path in str(told.value)
