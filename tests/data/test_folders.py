"""Folders of images: what is read, in which order, and what is said of a folder that is not as it should be."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import formats
import numpy as np
import pytest

from kdx.data.folders import ImageFolder, Imagenet, UnlabeledImages, image_paths
from kdx.data.source import BadImageError, Images

CLASSES = {"cat": 3, "ant": 2, "Bee": 4}


def assert_same(images: Images, expected: tuple[list[np.ndarray], list[int]], tolerance: int = 0) -> None:
    pixels, labels = expected
    assert len(images) == len(pixels)
    np.testing.assert_array_equal(images.labels, labels)
    copy = pickle.loads(pickle.dumps(images))
    for i, one in enumerate(pixels):
        assert np.abs(images[i].astype(int) - one).max() <= tolerance
        np.testing.assert_array_equal(copy[i], images[i])


@pytest.mark.parametrize("val", ["val", "validation"])
@pytest.mark.parametrize("splits", [("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")])
def test_tree_with_splits(tmp_path: Path, splits: tuple[str, ...], val: str) -> None:
    written = {}
    for k, name in enumerate(splits):
        written[name] = formats.write_tree(tmp_path / {"val": val}.get(name, name), CLASSES, first=100 * k)
    source = ImageFolder(str(tmp_path))
    assert source.num_classes == 3
    source.check()
    found = source.splits()
    assert set(found) == set(splits)
    for name, images in found.items():
        assert_same(images, written[name])


def test_tree_without_splits_is_all_train(tmp_path: Path) -> None:
    written = formats.write_tree(tmp_path, CLASSES)
    found = ImageFolder(str(tmp_path)).splits()
    assert list(found) == ["train"]
    assert_same(found["train"], written)
    assert ImageFolder(str(tmp_path)).num_classes == 3 and ImageFolder(str(tmp_path), num_classes=5).num_classes == 5


def test_gray_trees_have_one_channel(tmp_path: Path) -> None:
    formats.save(tmp_path / "a" / "x.png", formats.noise(0, 1))
    source = ImageFolder(str(tmp_path), channels=1)
    assert source.channels == 1
    np.testing.assert_array_equal(source.splits()["train"][0], formats.noise(0, 1))


def test_other_files_hidden_files_and_nested_folders(tmp_path: Path) -> None:
    formats.write_tree(tmp_path, {"a": 1, "b": 1})
    formats.save(tmp_path / "b" / "deep" / "er" / "X.PNG", formats.smooth(7))
    for name in ("Thumbs.db", "notes.txt", ".hidden.png", "._0000.png"):
        (tmp_path / "a" / name).write_text("not an image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").touch()
    images = ImageFolder(str(tmp_path)).splits()["train"]
    assert images.labels is not None and images.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(images[2], formats.smooth(7))


def test_links_are_followed_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    formats.write_tree(tmp_path / "elsewhere", {"a": 2})
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "elsewhere" / "a" / "back").symlink_to(tmp_path / "root")
    assert len(ImageFolder(str(tmp_path / "root")).splits()["train"]) == 2
    assert len(list(image_paths(tmp_path / "root"))) == 2


def test_order_is_that_of_the_names_not_of_the_disk(tmp_path: Path) -> None:
    for name in ("b", "a", "c", "A", "10", "9"):
        formats.save(tmp_path / f"{name}.png", formats.noise(0))
    assert [Path(path).stem for path in image_paths(tmp_path)] == ["10", "9", "A", "a", "b", "c"]


def lose_class(root: Path) -> None:
    shutil.rmtree(root / "val" / "Bee")


def new_class(root: Path) -> None:
    formats.write_tree(root / "val", {"dog": 1})


def new_test_class(root: Path) -> None:
    formats.write_tree(root / "test", {**CLASSES, "dog": 1})


def empty_class(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "wasp").mkdir()
    formats.save(root / "train" / "wasp" / "0.png", formats.smooth(0))


def no_images(root: Path) -> None:
    for path in (root / "train" / "cat").iterdir():
        path.rename(path.with_suffix(".txt"))


def flat(root: Path) -> None:
    shutil.rmtree(root / "train")
    formats.save(root / "train" / "0.png", formats.smooth(0))


def no_train(root: Path) -> None:
    shutil.rmtree(root / "train")


def two_vals(root: Path) -> None:
    shutil.copytree(root / "val", root / "validation")


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "class missing in val": (lose_class, "/val lacks the class folder 'Bee'", "add it, or remove"),
    "class missing in train": (new_class, "/val/dog is a class that", "add it there, or remove it here"),
    "class of test missing in train": (new_test_class, "/test/dog is a class that", "add it there, or remove it here"),
    "empty class": (empty_class, "/val/wasp contains no image", "put images there, or remove the class"),
    "class without images": (no_images, "/train/cat contains no image", "put images there, or remove the class"),
    "no class folders": (flat, "/train has no class folders", "ROOT/train/CLASS/IMAGE"),
    "no train": (no_train, "has val, but no train folder", "ROOT/train/CLASS/IMAGE"),
    "val twice": (two_vals, "has a val and a validation folder", "remove or rename one"),
}


@pytest.mark.parametrize(("harm", "what", "remedy"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_tree_is_told_with_its_remedy(tmp_path: Path, harm: Callable[[Path], None], what: str, remedy: str) -> None:
    for split in ("train", "val"):
        formats.write_tree(tmp_path / split, CLASSES)
    harm(tmp_path)
    with pytest.raises(ValueError) as told:
        ImageFolder(str(tmp_path)).splits()
    assert what in str(told.value) and remedy in str(told.value) and str(tmp_path) in str(told.value)


def test_more_class_folders_than_classes(tmp_path: Path) -> None:
    formats.write_tree(tmp_path, CLASSES)
    with pytest.raises(ValueError, match=r"has 3 class folders, more than data.num_classes=2.*set data.num_classes=3"):
        ImageFolder(str(tmp_path), num_classes=2).check()
    with pytest.raises(ValueError, match="num_classes"):
        ImageFolder(str(tmp_path), num_classes=0)


@pytest.mark.parametrize("source", [ImageFolder, Imagenet, UnlabeledImages])
def test_missing_root_is_told_with_layout_and_remedy(source: type, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Missing required option: data.root=FOLDER. Expected layout: ROOT/"):
        source(None).check()
    with pytest.raises(ValueError, match=r"/nowhere: folder not found. Expected layout: ROOT/.*Correct data.root"):
        source(str(tmp_path / "nowhere")).check()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="/file: folder not found"):
        source(str(tmp_path / "file")).check()
    with pytest.raises(ValueError, match="Expected layout: ROOT/"):
        source(str(tmp_path)).check()


def test_root_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    formats.write_tree(tmp_path / "pictures", CLASSES)
    assert len(ImageFolder("~/pictures").splits()["train"]) == len(UnlabeledImages("~/pictures").splits()["train"]) == 9


def test_unlabeled_images_of_any_depth(tmp_path: Path) -> None:
    formats.save(tmp_path / "b.png", formats.smooth(0))
    formats.save(tmp_path / "a" / "deep" / "c.png", formats.smooth(1))
    source = UnlabeledImages(str(tmp_path))
    assert source.num_classes is None and not source.labels and not source.train_labels
    source.check()
    found = source.splits()
    assert list(found) == ["train"] and found["train"].labels is None
    np.testing.assert_array_equal(found["train"][0], formats.smooth(0))
    np.testing.assert_array_equal(found["train"][1], formats.smooth(1))
    assert UnlabeledImages(str(tmp_path), num_classes=7).num_classes == 7


def test_bad_file_in_a_folder_is_found_when_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    images = UnlabeledImages(str(tmp_path)).splits()["train"]
    with pytest.raises(BadImageError, match=r"cut.png"):
        images[0]


def test_imagenet(tmp_path: Path) -> None:
    written = formats.write_imagenet(tmp_path)
    source = Imagenet(str(tmp_path))
    source.check()
    found = source.splits()
    assert set(found) == {"train", "test"}
    for name, (pixels, labels) in written.items():
        images = found[name]
        np.testing.assert_array_equal(images.labels, labels)
        for i in range(0, 1000, 97):
            assert np.abs(images[i].astype(int) - pixels[i]).max() <= 4
    shutil.rmtree(tmp_path / "val" / "n01440764")
    with pytest.raises(ValueError, match=r"val contains 999 class folders, expected 1000.*image-net.org.*data=imagefolder"):
        source.check()
    (tmp_path / "val" / "n99999999").mkdir()
    with pytest.raises(ValueError, match="val lacks the class folder 'n01440764'"):
        source.check()
