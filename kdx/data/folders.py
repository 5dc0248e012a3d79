"""Sources that are folders of image files: a labeled tree, ImageNet, images without labels."""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from kdx.data import layouts
from kdx.data.decoding import ImageFiles, channels_of
from kdx.data.layouts import ENDINGS, SAMPLE, TREE, existing, image_paths, split_folders, subfolders
from kdx.data.source import SPLITS, Images, Source, SplitName
from kdx.ranges import Count, validated

FLAT = "ROOT/IMAGE, in folders of any depth"
IMAGENET = "ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG, 1000 WNID folders such as n01440764 in each"
IMAGENET_SITE = (
    "get ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz with an account at "
    "image-net.org/download-images; torchvision.datasets.ImageNet(ROOT, 'train') and (ROOT, 'val') unpack them into this layout"
)


def labeled(folder: Path, classes: Sequence[str], channels: int, *, complete: bool = True) -> ImageFiles:
    """Return the images of folder/CLASS/, labeled by the index of CLASS in `classes`.

    Raises ValueError if a class has no image; without `complete`, only if no class has one.
    """
    counts: list[int] = []

    def found() -> Iterator[str]:
        for name in classes:
            images = list(image_paths(folder / name)) if complete or (folder / name).is_dir() else []
            if complete and not images:
                raise ValueError(
                    f"{folder / name} contains no image ({' '.join(ENDINGS)}): put images there, or remove the class"
                )
            counts.append(len(images))
            yield from images

    files = ImageFiles(found(), None, channels)
    files.labels = np.repeat(np.arange(len(classes)), counts)
    if not len(files):
        raise ValueError(f"{folder} contains no image ({' '.join(ENDINGS)}): put images into its class folders, or remove it")
    return files


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
                layouts.check_no_splits(root, all_names)
                return {"train": root}
        elif layouts.is_unlabeled_tiny_test(root, found):
            del found["test"]
        return {split: root / found[split] for split in SPLITS if split in found}

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
            if not subfolders(folder) or not layouts.is_sorted(folder):
                layouts.check_unsorted(folder, split)
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
            if layouts.is_sorted(folder) and (stray := layouts.count_images(folder)):
                said.append(f"{stray} images directly in {folder} are not used: they are in no class folder")
        nested = layouts.nested_classes(next(iter(folders.values())), self.names)
        return said if nested is None else [*said, nested]

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        classes, channels = self.names, self.channels
        splits: dict[SplitName, Images] = {}
        for split, folder in self._folders().items():
            if layouts.is_sorted(folder):
                splits[split] = labeled(folder, classes, channels, complete=split == "train")
            else:
                splits[split] = ImageFiles(*layouts.read_tiny_imagenet_list(folder, classes), channels)
        return splits


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
                    raise ValueError(f"{folder}: {layouts.SORT_VAL}")
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
        return {"train": ImageFiles(image_paths(root), None, self.channels)}
