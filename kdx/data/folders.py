"""Sources that are folders of image files: a labeled tree, ImageNet, images without labels."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from kdx.data.decoding import ImageFiles
from kdx.data.source import Images, Source, SplitName
from kdx.ranges import Count, validated

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")
TREE = "ROOT/train/CLASS/IMAGE, optionally ROOT/val/CLASS/IMAGE and ROOT/test/CLASS/IMAGE; or only ROOT/CLASS/IMAGE"
FLAT = "ROOT/IMAGE, in folders of any depth"
IMAGENET = "ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG, 1000 WNID folders such as n01440764 in each"
IMAGENET_SITE = (
    "get ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz with an account at "
    "image-net.org/download-images; torchvision.datasets.ImageNet(ROOT, 'train') and (ROOT, 'val') unpack them into this layout"
)


def existing(root: str | None, layout: str, remedy: str) -> Path:
    """Return the folder `root`. Raises ValueError, with the expected layout and the remedy, if it does not exist."""
    if root is None:
        raise ValueError(f"Missing required option: data.root=FOLDER. Expected layout: {layout}; {remedy}")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(f"data.root={root}: folder not found. Expected layout: {layout}. Correct data.root; {remedy}")
    return path


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def image_paths(folder: Path) -> Iterator[str]:
    """Yield the image files at any depth, sorted by name; symbolic links are followed, each folder is visited once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            images = sorted(name for name in files if name.lower().endswith(ENDINGS) and not name.startswith("."))
            yield from (os.path.join(here, name) for name in images)
        seen.add(real)


def _refuse(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be read ({error.strerror}): check its permissions")


def labeled(folder: Path, classes: Sequence[str], channels: int) -> ImageFiles:
    """Return the images of folder/CLASS/, labeled by the index of CLASS in `classes`. ValueError if a class has no image."""
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = list(image_paths(folder / name))
        if not images:
            raise ValueError(f"{folder / name} contains no image ({' '.join(ENDINGS)}): put images there, or remove the class")
        paths += images
        labels += [label] * len(images)
    return ImageFiles(paths, labels, channels)


def same_classes(train: Path, other: Path) -> None:
    """Raise ValueError, with the name of the class, if one of the two folders has a class that the other lacks."""
    expected, present = subfolders(train), subfolders(other)
    if lacking := sorted(set(expected) - set(present)):
        raise ValueError(
            f"{other} lacks the class folder '{lacking[0]}' that {train} has: add it, or remove {other}, and a split is "
            f"carved from train"
        )
    if extra := sorted(set(present) - set(expected)):
        raise ValueError(f"{other / extra[0]} is a class that {train} lacks: add it there, or remove it here")


@validated
class ImageFolder(Source):
    """A labeled folder tree root/train/CLASS/*, optionally with val (or validation) and test; or root/CLASS/* as train.

    Classes are the sorted names of train's folders. `num_classes` must be at least their number.
    """

    def __init__(self, root: str | None, num_classes: Count | None = None, channels: Literal[1, 3] = 3) -> None:
        self.root, self.channels, self._num_classes = root, channels, num_classes

    @functools.cached_property
    def num_classes(self) -> int:  # type: ignore[override]  # known once it is read
        """As given, else the number of class folders. ValueError where `check` raises it."""
        return self._num_classes or len(subfolders(self._folders()["train"]))

    @property
    def names(self) -> Sequence[str]:  # type: ignore[override]  # read from disk
        """The class folders. ValueError where `check` raises it."""
        return subfolders(self._folders()["train"])

    def _folders(self) -> dict[SplitName, Path]:
        root = existing(self.root, TREE, "or use data=images for images without labels")
        val = [root / name for name in ("val", "validation") if (root / name).is_dir()]
        if len(val) == 2:
            raise ValueError(f"{root} has a val and a validation folder: remove or rename one of them")
        test = [root / "test"] if (root / "test").is_dir() else []
        train = root / "train"
        if not train.is_dir():
            if val or test:
                raise ValueError(f"{root} has {[*val, *test][0].name}, but no train folder. Expected layout: {TREE}. Add train")
            return {"train": root}
        others: list[tuple[SplitName, list[Path]]] = [("val", val), ("test", test)]
        return {"train": train, **{name: paths[0] for name, paths in others if paths}}

    def check(self) -> None:
        folders = self._folders()
        train = folders["train"]
        count = len(subfolders(train))
        if not count:
            raise ValueError(
                f"{train} has no class folders. Expected layout: {TREE}. Sort the images into class folders, or use data=images"
            )
        for folder in folders.values():
            same_classes(train, folder)
        if count > self.num_classes:
            raise ValueError(
                f"{train} has {count} class folders, more than data.num_classes={self.num_classes}: "
                f"set data.num_classes={count}"
            )

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        folders = self._folders()
        classes = subfolders(folders["train"])
        return {name: labeled(folder, classes, self.channels) for name, folder in folders.items()}


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
    """All images in a folder, at any depth, without labels; the student learns from the teacher only."""

    train_labels = False
    labels = False

    def __init__(self, root: str | None, num_classes: Count | None = None, channels: Literal[1, 3] = 3) -> None:
        self.root, self.num_classes, self.channels = root, num_classes, channels

    def check(self) -> None:
        root = existing(self.root, FLAT, "put images there")
        if next(image_paths(root), None) is None:
            raise ValueError(f"{root} contains no image ({' '.join(ENDINGS)}). Expected layout: {FLAT}. Put images there")

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        root = Path(str(self.root)).expanduser()
        return {"train": ImageFiles(list(image_paths(root)), None, self.channels)}
