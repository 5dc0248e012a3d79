"""Public data sets in their published formats, read and downloaded with torchvision.

If a data set has no val split, one is carved from train by seed, stratified by class. The papers use "the last 10 %" of the
shuffled order of tensorflow-datasets; in these files, the last 10 % would be the last few classes.
torchvision takes seconds to import, so it is imported only inside functions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from kdx.data.cifar import intact, read_batch
from kdx.data.decoding import ImageFiles
from kdx.data.layouts import existing
from kdx.data.source import ArrayImages, Images, Source, SplitName


class VisionSource(Source):
    """A data set of torchvision. `layout` describes the root folder; `needed` are the paths required without a download."""

    num_classes: int
    layout: str
    needed: tuple[str, ...]

    def __init__(self, root: str | None, download: bool = False) -> None:
        self.root, self.download = root, download

    def check(self) -> None:
        if self.download and self.root is not None:
            return
        root = existing(self.root, self.layout, "data.download=true downloads it")
        for name in self.needed:
            if not (root / name).exists():
                raise ValueError(f"{root / name} not found. Expected layout: {self.layout}. data.download=true downloads it")

    def splits(self) -> Mapping[SplitName, Images]:
        self.check()
        root = Path(str(self.root)).expanduser()
        if not self.download:
            return self._checked(self._read(root))
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"Cannot create data.root={root} ({error.strerror}): use a writable folder") from error
        with FileLock(root / ".download.lock"):  # several processes may download the same data
            return self._checked(self._read(root))

    @abstractmethod
    def _read(self, root: Path) -> dict[SplitName, Images]: ...

    def _checked(self, splits: dict[SplitName, Images]) -> dict[SplitName, Images]:
        for split, images in splits.items():
            assert images.labels is not None
            subject = f"{self.root}: {split} of {type(self).__name__} has"
            remedy = f"delete {self.needed[0]} there and run with data.download=true"
            if len(images) != len(images.labels) or not len(images):
                raise ValueError(f"{subject} {len(images)} images and {len(images.labels)} labels: {remedy}")
            for label in (images.labels.min(), images.labels.max()):
                if not 0 <= label < self.num_classes:
                    raise ValueError(f"{subject} label {label}, out of range 0 to {self.num_classes - 1}: {remedy}")
        return splits

    def _index(self, dataset: type, root: Path, **arguments: Any) -> Any:
        """Return the data set of torchvision. ValueError, with the remedy, if it cannot be downloaded or read."""
        try:
            return dataset(str(root), download=self.download, **arguments)
        except Exception as error:  # damaged lists can raise any exception in torchvision
            raise self._failed(root, error) from error

    def _failed(self, root: Path, error: Exception) -> ValueError:
        remedy = (
            f"copy it there by hand ({self.layout})"
            if self.download
            else f"delete {root / self.needed[0]} and use data.download=true"
        )
        return ValueError(
            f"Cannot {'download' if self.download else 'read'} {type(self).__name__} in {root} ({error}): {remedy}"
        )


class _Cifar(VisionSource):
    """50,000 training and 10,000 test photographs of 32x32 px. (Krizhevsky 2009)

    Without `verify`, checksums do not count, so variants in the same format are read: noisy, long-tailed, of fewer images.
    """

    key: str  # key of the labels in a batch file

    def __init__(self, root: str | None, download: bool = False, verify: bool = True) -> None:
        super().__init__(root, download)
        self.verify = verify

    @abstractmethod
    def _published(self) -> Any:
        """Return the class of torchvision with the URL and the checksums."""

    def _read(self, root: Path) -> dict[SplitName, Images]:
        published = self._published()
        folder = root / published.base_folder
        lists: dict[SplitName, Any] = {"train": published.train_list, "test": published.test_list}
        parts = {split: [(name, md5 if self.verify else None) for name, md5 in files] for split, files in lists.items()}
        if self.download and not all(intact(folder / name, md5) for part in parts.values() for name, md5 in part):
            from torchvision.datasets.utils import download_and_extract_archive

            try:
                download_and_extract_archive(published.url, str(root), filename=published.filename, md5=published.tgz_md5)
            except (OSError, RuntimeError) as error:
                raise self._failed(root, error) from error
        splits: dict[SplitName, Images] = {}
        for split, files in parts.items():
            images, labels = zip(*(read_batch(folder / name, md5, self.key) for name, md5 in files), strict=True)
            splits[split] = ArrayImages(np.concatenate(images), np.concatenate(labels))
        return splits


class Cifar10(_Cifar):
    """CIFAR-10: ten kinds of animals and vehicles, train and test."""

    num_classes = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    layout = "ROOT/cifar-10-batches-py/ with data_batch_1 to data_batch_5 and test_batch (the python version)"
    needed = ("cifar-10-batches-py", "cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch")
    key = "labels"

    def _published(self) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10


class Cifar100(_Cifar):
    """CIFAR-100: a hundred fine classes, train and test."""

    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    layout = "ROOT/cifar-100-python/ with train and test (the python version)"
    needed = ("cifar-100-python", "cifar-100-python/train", "cifar-100-python/test")
    key = "fine_labels"

    def _published(self) -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100


class FashionMnist(VisionSource):
    """70,000 gray pictures of clothes, 28x28 px, train and test. (Xiao et al. 2017) Training images are flipped by default."""

    num_classes = 10
    channels = 1
    mean = (0.2860,)
    std = (0.3530,)
    layout = "ROOT/FashionMNIST/raw/ with {train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte, unpacked"
    needed = ("FashionMNIST/raw", "FashionMNIST/raw/train-images-idx3-ubyte", "FashionMNIST/raw/t10k-images-idx3-ubyte")

    def _read(self, root: Path) -> dict[SplitName, Images]:
        from torchvision.datasets import FashionMNIST

        splits: dict[SplitName, Images] = {}
        parts: dict[SplitName, bool] = {"train": True, "test": False}
        for split, train in parts.items():
            dataset = self._index(FashionMNIST, root, train=train)
            splits[split] = ArrayImages(dataset.data.numpy()[:, None], dataset.targets.numpy())
        return splits


class Flowers102(VisionSource):
    """102 kinds of flowers, 1,020 train, 1,020 val and 6,149 test. (Nilsback and Zisserman 2008)"""

    num_classes = 102
    layout = "ROOT/flowers-102/ with jpg/, imagelabels.mat and setid.mat"
    needed = ("flowers-102", "flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat")

    def _read(self, root: Path) -> dict[SplitName, Images]:
        from torchvision.datasets import Flowers102 as Published

        names: tuple[SplitName, ...] = ("train", "val", "test")
        datasets = {name: self._index(Published, root, split=name) for name in names}
        return {name: _files(split) for name, split in datasets.items()}


class Pets(VisionSource):
    """37 breeds of cats and dogs (Oxford-IIIT), 3,680 trainval and 3,669 test. (Parkhi et al. 2012)"""

    num_classes = 37
    layout = "ROOT/oxford-iiit-pet/ with images/ and annotations/ (trainval.txt, test.txt)"
    needed = ("oxford-iiit-pet/annotations", "oxford-iiit-pet/images")

    def _read(self, root: Path) -> dict[SplitName, Images]:
        from torchvision.datasets import OxfordIIITPet

        train, test = (self._index(OxfordIIITPet, root, split=name) for name in ("trainval", "test"))
        return {"train": _files(train), "test": _files(test)}


class Food101(VisionSource):
    """101 dishes, 75,750 train with some wrong labels and 25,250 test. (Bossard et al. 2014)"""

    num_classes = 101
    layout = "ROOT/food-101/ with images/ and meta/ (train.json, test.json)"
    needed = ("food-101/meta", "food-101/images")

    def _read(self, root: Path) -> dict[SplitName, Images]:
        from torchvision.datasets import Food101 as Published

        train, test = (self._index(Published, root, split=name) for name in ("train", "test"))
        return {"train": _files(train), "test": _files(test)}


class Sun397(VisionSource):
    """397 kinds of places, 108,754 images. There is no standard split, so all images are train, and val and test are carved."""

    num_classes = 397
    layout = "ROOT/SUN397/ with ClassName.txt and LETTER/CLASS/sun_*.jpg"
    needed = ("SUN397", "SUN397/ClassName.txt")

    def _read(self, root: Path) -> dict[SplitName, Images]:
        from torchvision.datasets import SUN397

        order = sorted(
            zip(*indexed(self._index(SUN397, root)), strict=True)
        )  # the order of torchvision depends on the file system
        return {"train": ImageFiles([path for path, _ in order], [label for _, label in order], channels=3)}


def _files(dataset: Any) -> ImageFiles:
    return ImageFiles(*indexed(dataset), channels=3)


def indexed(dataset: Any) -> tuple[list[str], list[int]]:
    """Return the files and labels of a torchvision data set, which has no public attribute for them."""
    paths = getattr(dataset, "_image_files", None) or getattr(dataset, "_images", None)
    labels = getattr(dataset, "_labels", None)
    if paths is None or labels is None:
        import torchvision

        name = type(dataset).__name__
        raise RuntimeError(
            f"torchvision {torchvision.__version__} has an unknown layout of {name}: install torchvision 0.26 to 0.29"
        )
    return [str(path) for path in paths], list(labels)
