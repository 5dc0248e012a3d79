"""Folders of images: what is read, in which order, and what is said of a folder that is not as it should be."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import formats
import numpy as np
import pytest
from PIL import Image

from kdx.data.folders import ImageFolder, Imagenet, UnlabeledImages
from kdx.data.layouts import image_paths
from kdx.data.source import BadImageError, Images
from kdx.data.splits import carve

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


@pytest.mark.parametrize(
    ("split", "name"),
    [
        (split, written)
        for split, names in {
            "train": "train training trainset train_images training_set",
            "val": "val valid validation dev validation_data",
            "test": "test testing eval evaluation test-set",
        }.items()
        for name in names.split()
        for written in (name, name.capitalize(), name.upper())
    ],
)
def test_usual_names_of_splits(split: str, name: str, tmp_path: Path) -> None:
    """Expected: the split of the same keyword in Hugging Face's `datasets` (data_files.py)."""
    folders = {"train": "train", "val": "val", "test": "test", split: name}
    written = {
        own: formats.write_tree(tmp_path / folder, CLASSES, first=50 * k) for k, (own, folder) in enumerate(folders.items())
    }
    found = ImageFolder(str(tmp_path)).splits()
    assert set(found) == set(folders)
    for own, images in found.items():
        assert_same(images, written[own])


@pytest.mark.parametrize("name", ["trains", "invalid", "latest", "train_station", "testudo", "devil", "evaluator", "dataset"])
def test_other_words_are_classes(name: str, tmp_path: Path) -> None:
    formats.write_tree(tmp_path, {name: 1, "other": 1})
    assert sorted([name, "other"]) == ImageFolder(str(tmp_path)).names
    formats.write_tree(tmp_path / "tree" / "train", {"train": 1, "car": 1})  # in a split, any name is a class
    assert ImageFolder(str(tmp_path / "tree")).names == ["car", "train"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["cat/0", "dog/0", "Test/0"], "has Test, which looks like the test split, but no train folder.*ROOT/train/CLASS"),
        (["car/0", "train"], "/train has no class folders.*If train is a class, move all class folders into .*/train"),
        (["seg_train/a", "seg_test/a", "seg_pred/a"], "has seg_test and seg_train, which look like splits.*ROOT/train/CLASS"),
        (["train2017/a", "val2017/a", "notes/a"], "has train2017 and val2017, which look like splits"),
        (["images/train/a", "images/val/a"], "/images contains train and val. .*set data.root=.*/images"),
        (
            ["bottle/train/good", "bottle/test/bad", "nut/train/good"],
            "/bottle contains test and train.*splits above the classes",
        ),
        (["train/a", "train/b", "test", "Eval/a"], "has a Eval and a test folder, two names of the test split"),
        (["train/images", "train/masks"], "has images and masks, which are not classes"),
        (["train/a"], r"Need at least 2 classes, found 1 in .*/train \('a'\).*Add class folders, or use data=images"),
        (["train/a", "train/b", "test"], "/test has no class folders, so its images have no labels.*or move test elsewhere"),
        (["train/Cat", "train/dog", "val/cat", "val/dog"], r"/val/cat is a class that .*/train lacks \(near: 'Cat'\)"),
    ],
)
def test_folders_that_are_no_classes(folders: list[str], message: str, tmp_path: Path) -> None:
    for folder in folders:
        formats.save(tmp_path / folder / "0.png", formats.smooth(0))
    with pytest.raises(ValueError, match=message):
        ImageFolder(str(tmp_path)).check()


@pytest.mark.parametrize("splits", [["test"], ["Val", "testing"]])
def test_without_train_there_are_splits_to_evaluate_on(splits: list[str], tmp_path: Path) -> None:
    for name in splits:
        formats.write_tree(tmp_path / name, CLASSES)
    source = ImageFolder(str(tmp_path))
    assert source.num_classes == 3 and source.names == sorted(CLASSES)
    assert set(source.splits()) == {"test": {"test"}, "Val": {"val", "test"}}[splits[0]]
    with pytest.raises(ValueError, match=r"has no train split, only .*: add train, or use the data set with kdx-evaluate"):
        carve(source.splits(), val=0.1, test=0.1, train_size=None, seed=0)


def test_tiny_imagenet_as_published(tmp_path: Path) -> None:
    wnids = ["n01443537", "n01629819", "n01641577"]
    for k, wnid in enumerate(wnids):
        for i in range(2):
            formats.save(tmp_path / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", formats.smooth(10 * k + i))
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
    expected = [2, 0, 1, 0]
    lines = [f"val_{i}.JPEG\t{wnids[k]}\t0\t32\t44\t62\n" for i, k in enumerate(expected)]
    for i in range(4):
        formats.save(tmp_path / "val" / "images" / f"val_{i}.JPEG", formats.smooth(100 + i))
        formats.save(tmp_path / "test" / "images" / f"test_{i}.JPEG", formats.smooth(200 + i))
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    (tmp_path / "wnids.txt").write_text("\n".join(reversed(wnids)))
    source = ImageFolder(str(tmp_path))
    found = source.splits()
    assert set(found) == {"train", "val"} and source.names == wnids
    assert_same(found["train"], ([formats.smooth(10 * k + i) for k in range(3) for i in range(2)], [0, 0, 1, 1, 2, 2]), 4)
    assert_same(found["val"], ([formats.smooth(100 + i) for i in range(4)], expected), 4)
    assert source.remarks() == [f"{tmp_path / 'test'} is not used: it is not a split with class folders"]
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99999999\t0\t0\t1\t1\n")
    with pytest.raises(ValueError, match=r"val_annotations.txt, line 1: 'n99999999' is no class folder of train"):
        source.splits()


@pytest.mark.parametrize("source", [ImageFolder, Imagenet])
def test_flat_val_of_imagenet_is_recognized(source: type, tmp_path: Path) -> None:
    for k in range(1000):
        (tmp_path / "train" / f"n{k:08d}").mkdir(parents=True)
    formats.save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", formats.smooth(0))
    with pytest.raises(ValueError, match=r"/val.* not in WNID folders.*torchvision.datasets.ImageNet\(FOLDER, 'val'\)"):
        source(str(tmp_path)).check()


def test_what_is_not_used_is_told(tmp_path: Path) -> None:
    formats.write_tree(tmp_path / "train", {"a": 1, "b": 1})
    for name in ("pred/0.png", "train/__MACOSX/a/._0.png", "train/.ipynb_checkpoints/0.png", "@eaDir/0.png", "train/loose.png"):
        formats.save(tmp_path / name, formats.smooth(0))
    source = ImageFolder(str(tmp_path))
    assert source.names == ["a", "b"] and len(source.splits()["train"]) == 2
    assert source.remarks() == [
        f"{tmp_path / 'pred'} is not used: it is not a split with class folders",
        f"1 images directly in {tmp_path / 'train'} are not used: they are in no class folder",
    ]
    (tmp_path / "classes" / "c").mkdir(parents=True)
    formats.write_tree(tmp_path / "classes", {"a": 1, "b": 1, "c": 1})
    assert not ImageFolder(str(tmp_path / "classes")).remarks()


def test_folders_inside_class_folders_are_told(tmp_path: Path) -> None:
    train, source = tmp_path / "train", ImageFolder(str(tmp_path))
    for name in ("bird/owl", "mammal/cat", "mammal/dog"):
        formats.save(train / name / "0.png", formats.smooth(0))
    start = f"The classes are the folders directly in {train} (bird, mammal). "
    inner = "bird, mammal contain folders (owl, cat, dog): their images have the class of the folder above"
    remedy = f"If the inner folders are the classes, move them directly into {train}"
    assert source.remarks() == [f"{start}{inner}. {remedy}"]
    formats.save(train / "bird" / "0.png", formats.smooth(0))
    assert source.remarks() == [f"{start}{inner}"]
    (train / "mammal" / "cat").rename(train / "mammal" / "images")  # as in Tiny-ImageNet
    shutil.rmtree(train / "mammal" / "dog")
    assert source.remarks() == [f"{start}bird contains folders (owl): their images have the class of the folder above"]
    shutil.rmtree(train / "bird" / "owl")
    assert not source.remarks()


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ("L", 1),
        ("1", 1),
        ("LA", 1),
        ("I;16", 1),
        ("gray P", 1),
        ("L RGB", 3),
        ("P", 3),
        ("RGBA", 3),
        ("L broken", 1),
        ("broken", 3),
    ],
)
@pytest.mark.parametrize("kind", [ImageFolder, UnlabeledImages])
def test_channels_are_inferred(kind: type, modes: str, expected: int, tmp_path: Path) -> None:
    for k, mode in enumerate(modes.split() if modes != "gray P" else [modes]):
        for name in ("a", "b"):
            path = tmp_path / name / f"{k}.png"
            path.parent.mkdir(exist_ok=True)
            image = Image.fromarray(formats.noise(k).transpose(1, 2, 0))
            if mode == "broken":
                path.write_bytes(b"\x89PNG")
            elif mode == "I;16":
                Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(path)
            else:
                (image.convert("L").convert("P") if mode == "gray P" else image.convert(mode)).save(path)
    source = kind(str(tmp_path), channels=None)
    assert source.channels == expected and kind(str(tmp_path)).channels == 3
    if "broken" not in modes:
        assert len(source.splits()["train"][0]) == expected


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
    (tmp_path / "elsewhere" / "a" / "back").symlink_to(tmp_path / "root" / "a")
    formats.write_tree(tmp_path / "root", {"b": 1})
    assert len(ImageFolder(str(tmp_path / "root")).splits()["train"]) == 3
    assert len(list(image_paths(tmp_path / "root"))) == 3


def test_order_is_that_of_the_names_not_of_the_disk(tmp_path: Path) -> None:
    for name in ("b", "a", "c", "A", "10", "9"):
        formats.save(tmp_path / f"{name}.png", formats.noise(0))
    assert [Path(path).stem for path in image_paths(tmp_path)] == ["10", "9", "A", "a", "b", "c"]


def new_class(root: Path) -> None:
    formats.write_tree(root / "val", {"dog": 1})


def new_test_class(root: Path) -> None:
    formats.write_tree(root / "test", {**CLASSES, "dog": 1})


def empty_class(root: Path) -> None:
    (root / "train" / "wasp").mkdir()


def empty_val(root: Path) -> None:
    for path in (root / "val").rglob("*.png"):
        path.unlink()


def no_images(root: Path) -> None:
    for path in (root / "train" / "cat").iterdir():
        path.rename(path.with_suffix(".txt"))


def flat(root: Path) -> None:
    shutil.rmtree(root / "train")
    formats.save(root / "train" / "0.png", formats.smooth(0))


def two_vals(root: Path) -> None:
    shutil.copytree(root / "val", root / "validation")


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "class missing in train": (new_class, "/val/dog is a class that", "add it there, or remove or rename it here"),
    "class of test missing in train": (
        new_test_class,
        "/test/dog is a class that",
        "add it there, or remove or rename it here",
    ),
    "empty class": (empty_class, "/train/wasp contains no image", "put images there, or remove the class"),
    "no image in val": (empty_val, "/val contains no image", "put images into its class folders, or remove it"),
    "class without images": (no_images, "/train/cat contains no image", "put images there, or remove the class"),
    "no class folders": (flat, "/train has no class folders", "ROOT/train/CLASS/IMAGE"),
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


@pytest.mark.parametrize("empty", [False, True])
def test_a_class_may_be_absent_in_val(empty: bool, tmp_path: Path) -> None:
    for split in ("train", "val"):
        formats.write_tree(tmp_path / split, CLASSES)
    shutil.rmtree(tmp_path / "val" / "ant")
    if empty:
        (tmp_path / "val" / "ant").mkdir()
    found = ImageFolder(str(tmp_path)).splits()
    assert found["val"].labels is not None and sorted(set(found["val"].labels.tolist())) == [0, 2]


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
