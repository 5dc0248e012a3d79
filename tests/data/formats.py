"""Writers of the formats that public data sets come in, with a few small images each, and what was written.

A writer returns {split: (images uint8 [C,H,W], labels)} in the order in which the format lists them. Those with a `patch` put
the checksums of what they wrote in the place of the published ones.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kdx.networks.names import synsets

Written = dict[str, tuple[list[np.ndarray], list[int]]]


def smooth(number: int, height: int = 12, width: int = 16) -> np.ndarray:
    """An RGB image that JPEG keeps nearly as it is, different for every number."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    color = np.random.default_rng(number).integers(40, 215, (3, 1, 1))
    return np.round(color + 20 * np.stack([x, y, x + y - 1])).astype(np.uint8)


def noise(number: int, channels: int = 3, size: int = 32) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (channels, size, size), np.uint8)


def save(path: Path, image: np.ndarray, **options: Any) -> None:
    """Write uint8 [C,H,W] in the format that the ending names; JPEG at full quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(
        path, **({"quality": 100, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {})
    )


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and its numpy wrote: text as byte strings, numpy.core instead of numpy._core."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, text: Any) -> None:
        raw = text.encode("latin1") if isinstance(text, str) else text
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__qualname__}\n".encode())

    dispatch[bytes] = save_string
    dispatch[str] = save_string


def python2_pickle(thing: Any) -> bytes:
    out = io.BytesIO()
    Python2Pickler(out, 2).dump(thing)
    return out.getvalue()


def _batch(path: Path, images: Sequence[np.ndarray], labels: dict[str, list[int]]) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"picture_{i}.png" for i in range(len(images))]
    data = np.stack(images).reshape(len(images), -1)
    path.write_bytes(python2_pickle({"batch_label": path.name, "data": data, "filenames": names, **labels}))
    return [path.name, md5(path)]


def write_cifar10(root: Path, patch: pytest.MonkeyPatch, per_batch: int = 8) -> Written:
    from torchvision.datasets import CIFAR10

    folder, written, checksums = root / "cifar-10-batches-py", {"train": ([], []), "test": ([], [])}, []
    for part in range(6):
        images = [noise(part * per_batch + i) for i in range(per_batch)]
        labels = [(part * per_batch + i) % 10 for i in range(per_batch)]
        split, name = ("train", f"data_batch_{part + 1}") if part < 5 else ("test", "test_batch")
        checksums.append(_batch(folder / name, images, {"labels": labels}))
        written[split][0].extend(images)
        written[split][1].extend(labels)
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": [f"class {k}" for k in range(10)], "num_vis": 3072}))
    patch.setattr(CIFAR10, "train_list", checksums[:5])
    patch.setattr(CIFAR10, "test_list", checksums[5:])
    return written


def write_cifar100(root: Path, patch: pytest.MonkeyPatch, train: int = 40, test: int = 8) -> Written:
    from torchvision.datasets import CIFAR100

    written: Written = {}
    for split, size, attribute in (("train", train, "train_list"), ("test", test, "test_list")):
        images, labels = [noise(size * 1000 + i) for i in range(size)], [(7 * i) % 100 for i in range(size)]
        path = root / "cifar-100-python" / split
        coarse = {"fine_labels": labels, "coarse_labels": [k // 5 for k in labels]}
        patch.setattr(CIFAR100, attribute, [_batch(path, images, coarse)])
        written[split] = (images, labels)
    meta = {"fine_label_names": [f"class {k}" for k in range(100)]}
    (root / "cifar-100-python" / "meta").write_bytes(python2_pickle(meta))
    return written


def write_fashion_mnist(root: Path, patch: pytest.MonkeyPatch, train: int = 40, test: int = 8, packed: bool = False) -> Written:
    """The idx files; `packed` as they are downloaded, else unpacked."""
    from torchvision.datasets import FashionMNIST

    folder, written, resources = root / "FashionMNIST" / "raw", {}, []
    folder.mkdir(parents=True)
    for split, prefix, size in (("train", "train", train), ("test", "t10k", test)):
        images, labels = [noise(size * 1000 + i, 1, 28) for i in range(size)], [i % 10 for i in range(size)]
        contents = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">IIII", 0x803, size, 28, 28) + np.stack(images).tobytes(),
            f"{prefix}-labels-idx1-ubyte": struct.pack(">II", 0x801, size) + bytes(labels),
        }
        for name, content in contents.items():
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
                resources.append((f"{name}.gz", md5(folder / f"{name}.gz")))
            else:
                (folder / name).write_bytes(content)
        written[split] = (images, labels)
    if packed:
        patch.setattr(FashionMNIST, "resources", resources)
    return written


def write_flowers102(root: Path, patch: pytest.MonkeyPatch, sizes: tuple[int, int, int] = (40, 10, 10)) -> Written:
    """Image numbers are shuffled over the splits, as in the original."""
    from torchvision.datasets import Flowers102

    folder, total = root / "flowers-102", sum(sizes)
    labels = [(5 * i) % 102 for i in range(total)]
    for i in range(total):
        save(folder / "jpg" / f"image_{i + 1:05d}.jpg", smooth(i, 10 + i % 5, 14))
    order = np.random.default_rng(0).permutation(total)
    train, val, test = np.split(order, np.cumsum(sizes)[:2])
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], np.uint8) + 1})
    savemat(folder / "setid.mat", {"trnid": train[None] + 1, "valid": val[None] + 1, "tstid": test[None] + 1})
    files = {"label": "imagelabels.mat", "setid": "setid.mat"}
    known = {key: (name, md5(folder / name)) for key, name in files.items()}
    patch.setattr(Flowers102, "_file_dict", {**Flowers102._file_dict, **known})
    parts = {"train": train, "val": val, "test": test}
    return {name: ([smooth(i, 10 + i % 5, 14) for i in part], [labels[i] for i in part]) for name, part in parts.items()}


def write_pets(root: Path, train: int = 74, test: int = 37) -> Written:
    """In the order of the classes, as the original lists."""
    folder, written = root / "oxford-iiit-pet", {}
    (folder / "annotations").mkdir(parents=True)
    for split, name, size in (("train", "trainval", train), ("test", "test", test)):
        labels, lines, images = sorted(i % 37 for i in range(size)), [], []
        for i, label in enumerate(labels):
            breed = f"Breed_{label}_{size * 100 + i}"
            lines.append(f"{breed} {label + 1} {1 + label % 2} 1\n")
            images.append(smooth(size * 100 + i))
            save(folder / "images" / f"{breed}.jpg", images[-1])
        (folder / "annotations" / f"{name}.txt").write_text("".join(lines))
        written[split] = (images, labels)
    return written


def write_food101(root: Path, per_class: tuple[int, int] = (2, 1)) -> Written:
    folder, written = root / "food-101", {}
    dishes = [f"dish_{k:03d}" for k in range(101)]
    (folder / "meta").mkdir(parents=True)
    for split, size in zip(("train", "test"), per_class, strict=True):
        listed: dict[str, list[str]] = {}
        images, labels = [], []
        for label, dish in enumerate(dishes):
            listed[dish] = [f"{dish}/{split == 'test':d}{label:03d}{i}" for i in range(size)]
            for i, name in enumerate(listed[dish]):
                images.append(smooth(10 * label + i + 5 * (split == "test"), 8, 8))
                labels.append(label)
                save(folder / "images" / f"{name}.jpg", images[-1])
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))
        (folder / "meta" / f"{split}.txt").write_text("".join(f"{name}\n" for names in listed.values() for name in names))
        written[split] = (images, labels)
    (folder / "meta" / "classes.txt").write_text("\n".join(dishes))
    return written


def write_sun397(root: Path, classes: int = 397, per_class: int = 1) -> Written:
    """Names as in the original: most of two levels, some of three."""
    folder = root / "SUN397"
    names = sorted(f"{chr(97 + k % 26)}/place_{k:03d}{'/indoor' if k % 7 == 0 else ''}" for k in range(397))
    folder.mkdir(parents=True)
    (folder / "ClassName.txt").write_text("".join(f"/{name}\n" for name in names))
    files = []
    for label, name in enumerate(names[:classes]):
        for i in range(per_class):
            image = smooth(label * 10 + i, 8, 8)
            path = folder / name / f"sun_a{label:03d}{i}.jpg"
            save(path, image)
            files.append((str(path), image, label))
    files.sort(key=lambda file: file[0])
    return {"train": ([image for _, image, _ in files], [label for *_, label in files])}


def write_tree(
    folder: Path, classes: dict[str, int], ending: str = "png", first: int = 0
) -> tuple[list[np.ndarray], list[int]]:
    """folder/CLASS/NUMBER.ending, so many of each class."""
    images, labels = [], []
    for label, (name, size) in enumerate(sorted(classes.items())):
        for i in range(size):
            images.append(smooth(first + len(images), 8 + i % 3, 8))
            labels.append(label)
            save(folder / name / f"{i:04d}.{ending}", images[-1])
    return images, labels


def write_imagenet(root: Path, train: int = 1, val: int = 1) -> Written:
    wnids = synsets("imagenet")
    return {
        "train": write_tree(root / "train", dict.fromkeys(wnids, train), "JPEG"),
        "test": write_tree(root / "val", dict.fromkeys(wnids, val), "JPEG", first=5000),
    }
