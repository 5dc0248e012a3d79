"""Sources that are folders of image files: a labeled tree, ImageNet, images without labels."""

from __future__ import annotations

import difflib
import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from kdx.data import layouts
from kdx.data.decoding import ImageFiles, channels_of
from kdx.data.layouts import is_junk, split_folders, subfolders
from kdx.data.source import SPLITS, Images, Source, SplitName
from kdx.ranges import Count, validated

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")
TREE = "ROOT/train/CLASS/IMAGE, optionally ROOT/val/CLASS/IMAGE and ROOT/test/CLASS/IMAGE; or only ROOT/CLASS/IMAGE"
SAMPLE = 64  # images that the number of channels is inferred from, and classes that are searched for splits
FLAT = "ROOT/IMAGE, in folders of any depth"
IMAGENET = "ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG, 1000 WNID folders such as n01440764 in each"
IMAGENET_SITE = (
    "get ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz with an account at "
    "image-net.org/download-images; torchvision.datasets.ImageNet(ROOT, 'train') and (ROOT, 'val') unpack them into this layout"
)
SORT_VAL = (
    "its images are not in WNID folders, as ILSVRC2012_img_val.tar unpacks them: put this tar and ILSVRC2012_devkit_t12.tar.gz "
    "into a folder; torchvision.datasets.ImageNet(FOLDER, 'val') sorts them"
)


def existing(root: str | None, layout: str, remedy: str) -> Path:
    """Return the folder `root`. Raises ValueError, with the expected layout and the remedy, if it does not exist."""
    if root is None:
        raise ValueError(f"Missing required option: data.root=FOLDER. Expected layout: {layout}; {remedy}")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(f"data.root={root}: folder not found. Expected layout: {layout}. Correct data.root; {remedy}")
    return path


def image_paths(folder: Path) -> Iterator[str]:
    """Yield the image files at any depth, sorted by name; symbolic links are followed, each folder is visited once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else sorted(name for name in folders if not is_junk(name))
        if real not in seen:
            images = sorted(name for name in files if name.lower().endswith(ENDINGS) and not name.startswith("."))
            yield from (os.path.join(here, name) for name in images)
        seen.add(real)


def _refuse(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be read ({error.strerror}): check its permissions")


def labeled(folder: Path, classes: Sequence[str], channels: int, *, complete: bool = True) -> ImageFiles:
    """Return the images of folder/CLASS/, labeled by the index of CLASS in `classes`.

    Raises ValueError if a class has no image; without `complete`, only if no class has one.
    """
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = list(image_paths(folder / name)) if complete or (folder / name).is_dir() else []
        if complete and not images:
            raise ValueError(f"{folder / name} contains no image ({' '.join(ENDINGS)}): put images there, or remove the class")
        paths += images
        labels += [label] * len(images)
    if not paths:
        raise ValueError(f"{folder} contains no image ({' '.join(ENDINGS)}): put images into its class folders, or remove it")
    return ImageFiles(paths, labels, channels)


def same_classes(train: Path, other: Path) -> None:
    """Raise ValueError, with the name of the class, if one of the two folders has a class that the other lacks."""
    if lacking := sorted(set(subfolders(train)) - set(subfolders(other))):
        raise ValueError(
            f"{other} lacks the class folder '{lacking[0]}' that {train} has: add it, or remove {other}, and a split is "
            f"carved from train"
        )
    no_other_classes(train, other)


def no_other_classes(train: Path, other: Path) -> None:
    """Raise ValueError, with the name of the class, if `other` has a class that `train` lacks."""
    expected = subfolders(train)
    if extra := sorted(set(subfolders(other)) - set(expected)):
        lower = {name.lower(): name for name in expected}
        close = difflib.get_close_matches(extra[0].lower(), list(lower), n=1, cutoff=0.8)
        hint = f" (near: '{lower[close[0]]}')" if close else ""
        raise ValueError(f"{other / extra[0]} is a class that {train} lacks{hint}: add it there, or remove or rename it here")


@validated
class ImageFolder(Source):
    """A labeled folder tree root/train/CLASS/*, optionally with val and test; or root/CLASS/* as train.

    The folders of the splits may have other usual names (`layouts.WORDS`), in any case. Tiny-ImageNet is read as published.
    Classes are the sorted names of train's folders, or of those of val and test without train, as for an evaluation.
    `num_classes` must be at least their number. `channels` is 1 (gray), 3 (RGB), or None: 1 if a sample is all gray, else 3.
    """

    def __init__(self, root: str | None, num_classes: Count | None = None, channels: Literal[1, 3] | None = 3) -> None:
        self.root, self._channels, self._num_classes = root, channels, num_classes

    @functools.cached_property
    def num_classes(self) -> int:  # type: ignore[override]  # known once it is read
        """As given, else the number of class folders. ValueError where `check` raises it."""
        return self._num_classes or len(self.names)

    @property
    def names(self) -> Sequence[str]:  # type: ignore[override]  # read from disk
        """The class folders. ValueError where `check` raises it."""
        folders = self._folders()
        if "train" in folders:
            return subfolders(folders["train"])
        return sorted({name for folder in folders.values() for name in subfolders(folder)})

    @functools.cached_property
    def channels(self) -> int:  # type: ignore[override]  # known once it is read
        """As given, else 1 if all images of a sample over the classes are gray, else 3. ValueError where `check` raises it."""
        if self._channels is not None:
            return self._channels
        folder, names = next(iter(self._folders().values())), self.names
        each = -(-SAMPLE // max(1, len(names)))
        paths: list[str] = []
        for name in names[:: max(1, len(names) // SAMPLE)]:
            images = list(image_paths(folder / name))
            paths += images[:: max(1, len(images) // each)][:each]
        return channels_of(paths)

    def _folders(self) -> dict[SplitName, Path]:
        """Return the folders of the splits that exist, train first. ValueError if they cannot be told from classes."""
        root = existing(self.root, TREE, "or use data=images for images without labels")
        found, all_names = split_folders(root), subfolders(root)
        if "train" not in found:
            if found and len(found) < len(all_names):
                split, name = next(iter(found.items()))
                raise ValueError(
                    f"{root} has {name}, which looks like the {split} split, but no train folder. Expected layout: {TREE}. "
                    f"Move the other folders into {root / 'train'}, or remove {name}; if it is a class, it belongs there too"
                )
            if not found:
                self._check_no_splits(root, all_names)
                return {"train": root}
        elif _is_unlabeled_tiny_test(root, found):
            del found["test"]
        return {split: root / found[split] for split in SPLITS if split in found}

    def _check_no_splits(self, root: Path, names: Sequence[str]) -> None:
        """Raise ValueError if the folders in `root`, which would be classes, are splits or contain splits."""
        if disguised := layouts.disguised_splits(names):
            raise ValueError(
                f"{root} has {' and '.join(disguised)}, which look like splits, not classes. Expected layout: {TREE}. "
                "Rename them to train, val and test, or set data.root to one of them"
            )
        for name in names[:SAMPLE]:
            inner = [split for split in subfolders(root / name) if layouts.split_of(split) is not None]
            if any(layouts.split_of(split) == "train" for split in inner):
                remedy = f"set data.root={root / name}" if len(names) == 1 else "move the splits above the classes"
                raise ValueError(f"{root / name} contains {' and '.join(inner)}. Expected layout: {TREE}; {remedy}")

    def check(self) -> None:
        folders = self._folders()
        classes, first = self.names, next(iter(folders.values()))
        if not classes:
            also = f". If {first.name} is a class, move all class folders into {first.parent / 'train'}"
            hint = also if first != Path(str(self.root)).expanduser() else ""
            raise ValueError(
                f"{first} has no class folders. Expected layout: {TREE}. Sort the images into class folders, or use "
                f"data=images{hint}"
            )
        if all(name.lower() in layouts.CONTENTS for name in classes):
            raise ValueError(
                f"{first} has {' and '.join(classes)}, which are not classes. Expected layout: {TREE}. Sort the images into "
                "class folders, or use data=images"
            )
        if self.num_classes < 2:
            raise ValueError(
                f"Need at least 2 classes, found 1 in {first} ('{classes[0]}'). Expected layout: {TREE}. Add class folders, or "
                "use data=images for images without labels"
            )
        for split, folder in folders.items():
            if not subfolders(folder) or not _is_sorted(folder):
                _check_unsorted(folder, split)
            elif "train" in folders:
                no_other_classes(first, folder)
        if len(classes) > self.num_classes:
            raise ValueError(
                f"{first} has {len(classes)} class folders, more than data.num_classes={self.num_classes}: "
                f"set data.num_classes={len(classes)}"
            )

    def remarks(self) -> Sequence[str]:
        root, folders = Path(str(self.root)).expanduser(), self._folders()
        used = {folder.name for folder in folders.values()} if folders.get("train") != root else set(self.names)
        unused = [name for name in subfolders(root) if name not in used]
        said = [f"{root / name} is not used: it is not a split with class folders" for name in unused]
        for folder in folders.values():
            if _is_sorted(folder) and (stray := _count_images(folder)):
                said.append(f"{stray} images directly in {folder} are not used: they are in no class folder")
        return said

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        classes, channels = self.names, self.channels
        splits: dict[SplitName, Images] = {}
        for split, folder in self._folders().items():
            if _is_sorted(folder):
                splits[split] = labeled(folder, classes, channels, complete=split == "train")
            else:
                splits[split] = ImageFiles(*layouts.read_tiny_imagenet_list(folder, classes), channels)
        return splits


def _is_sorted(folder: Path) -> bool:
    """Return whether the images of a split are in class folders; else Tiny-ImageNet's list has their classes."""
    return subfolders(folder) != ["images"] or not (folder / layouts.TINY_LIST).is_file()


def _is_unlabeled_tiny_test(root: Path, found: Mapping[SplitName, str]) -> bool:
    """Return whether the test folder is that of Tiny-ImageNet as published, without labels."""
    return (
        {"val", "test"} <= set(found) and subfolders(root / found["test"]) == ["images"] and not _is_sorted(root / found["val"])
    )


def _count_images(folder: Path) -> int:
    """Return the number of image files directly in a folder."""
    with os.scandir(folder) as entries:
        return sum(entry.name.lower().endswith(ENDINGS) and not is_junk(entry.name) and entry.is_file() for entry in entries)


def _check_unsorted(folder: Path, split: SplitName) -> None:
    """Raise ValueError for a split without class folders, unless it is Tiny-ImageNet's val."""
    if not _is_sorted(folder):
        return
    if layouts.has_flat_imagenet_val(folder):
        raise ValueError(f"{folder} is ImageNet's val; {SORT_VAL}")
    raise ValueError(
        f"{folder} has no class folders, so its images have no labels. Expected layout: {TREE}. Sort them into class folders, "
        f"or move {folder.name} elsewhere, and {split} is carved from train"
    )


class Imagenet(Source):
    """ImageNet-1k (ILSVRC 2012): train, and the official validation images as test.

    val is carved from train, so that model selection does not use the test images; FunMatch trains on train[:98%].
    """

    num_classes = 1000

    def __init__(self, root: str | None) -> None:
        self.root = root

    @property
    def names(self) -> Sequence[str]:  # type: ignore[override]  # read from disk
        """The class folders, WNIDs."""
        return subfolders(existing(self.root, IMAGENET, IMAGENET_SITE) / "train")

    def check(self) -> None:
        root = existing(self.root, IMAGENET, IMAGENET_SITE)
        for folder in (root / "train", root / "val"):
            count = len(subfolders(folder)) if folder.is_dir() else 0
            if count != self.num_classes:
                if folder.is_dir() and layouts.has_flat_imagenet_val(folder):
                    raise ValueError(f"{folder}: {SORT_VAL}")
                raise ValueError(
                    f"{folder} contains {count} class folders, expected {self.num_classes}. Expected layout: {IMAGENET}. "
                    f"{IMAGENET_SITE}; for a part of ImageNet use data=imagefolder"
                )
        same_classes(root / "train", root / "val")

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        root = Path(str(self.root)).expanduser()
        classes = subfolders(root / "train")
        return {name: labeled(root / folder, classes, 3) for name, folder in _IMAGENET_SPLITS.items()}


_IMAGENET_SPLITS: dict[SplitName, str] = {"train": "train", "test": "val"}


@validated
class UnlabeledImages(Source):
    """All images in a folder, at any depth, without labels; the student learns from the teacher only.

    `channels` is 1 for gray, 3 for RGB, None: 1 if the first images are gray, else 3.
    """

    train_labels = False
    labels = False

    def __init__(self, root: str | None, num_classes: Count | None = None, channels: Literal[1, 3] | None = 3) -> None:
        self.root, self.num_classes, self._channels = root, num_classes, channels

    @functools.cached_property
    def channels(self) -> int:  # type: ignore[override]  # known once it is read
        """As given, else 1 if the first images are all gray, else 3. ValueError where `check` raises it."""
        if self._channels is not None:
            return self._channels
        root = existing(self.root, FLAT, "put images there")
        return channels_of(list(itertools.islice(image_paths(root), SAMPLE)))

    def check(self) -> None:
        root = existing(self.root, FLAT, "put images there")
        if next(image_paths(root), None) is None:
            raise ValueError(f"{root} contains no image ({' '.join(ENDINGS)}). Expected layout: {FLAT}. Put images there")

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        root = Path(str(self.root)).expanduser()
        return {"train": ImageFiles(list(image_paths(root)), None, self.channels)}
