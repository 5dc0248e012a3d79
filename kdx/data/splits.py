"""Stratified, seeded splits for data sets without an official val or test split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdx.config.schema import DataConfig
from kdx.data.cache import key
from kdx.data.source import Images, SplitName, Subset
from kdx.random import permutation, uniform


def stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A random order of the examples in which every run of consecutive ones has about the classes' proportions."""
    number = uniform(seed, "split", 0, np.arange(len(labels)), 2)
    within = np.lexsort((number[:, 0], labels))
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.empty(len(labels))
    place[within] = (rank + number[within, 1]) / np.repeat(counts, counts)
    return np.argsort(place, kind="stable")


Origin = Literal["train", "val"]


def carve(
    splits: Mapping[SplitName, Images],
    *,
    val: float,
    test: float,
    train_size: int | None,
    seed: int,
    test_from: Origin = "train",
) -> dict[SplitName, Images]:
    """Return train, val and test. A missing one gets its share of train; then train is cut to `train_size` examples.

    All have the classes' proportions; without labels, it is chance alone that decides.

    Args:
        splits: The splits of the data set.
        val: The share of train that a missing val gets.
        test: The share of train that a missing test gets.
        train_size: The number of training images, None for all.
        seed: Of the random order.
        test_from: With "val", if `splits` has val but not test, the images of test are taken from val instead of train: as
            many as otherwise, but at most half of val. So test has no image that a teacher trained on all of train has seen.

    Raises:
        ValueError: If there is no train split, or if `train_size` is too large.
    """
    given = dict(splits)
    if "train" not in given:
        raise ValueError(
            f"The data set has no train split, only {' and '.join(given) or 'none'}: add train, or use the data set with "
            "kdx-evaluate"
        )
    train = given["train"]
    if carved_from(splits, test_from).get("test") == "val":
        own = given["val"]
        order = _order(own, seed)
        size = min(round(test * len(train)), len(own) // 2)
        given["test"], given["val"] = Subset(own, np.sort(order[:size])), Subset(own, np.sort(order[size:]))
    order = _order(train, seed)
    shares: list[tuple[SplitName, float]] = [("test", test), ("val", val)]
    for name, share in shares:
        if name not in given:
            size = round(share * len(train))
            given[name] = Subset(train, np.sort(order[:size]))
            order = order[size:]
    if train_size is not None:
        if train_size > len(order):
            raise ValueError(
                f"data.train_size={train_size}, but only {len(order)} images are left for training: "
                f"set data.train_size to at most {len(order)}"
            )
        order = order[:train_size]
    return {**given, "train": Subset(train, np.sort(order))}


def carve_configured(splits: Mapping[SplitName, Images], data: DataConfig) -> dict[SplitName, Images]:
    """Return train, val and test by the settings of a config, as `carve`."""
    return carve(
        splits,
        val=data.val_share,
        test=data.test_share,
        train_size=data.train_size,
        seed=data.split_seed,
        test_from=data.test_from,
    )


def carved_from(splits: Mapping[SplitName, Images], test_from: Origin) -> dict[SplitName, SplitName]:
    """Return which splits `carve` adds, test first, and the split that each is taken from."""
    origins: dict[SplitName, SplitName] = {"test": "val" if test_from == "val" and "val" in splits else "train", "val": "train"}
    return {name: origin for name, origin in origins.items() if name not in splits}


def _order(images: Images, seed: int) -> NDArray[np.int64]:
    return permutation(seed, "split", 0, len(images)) if images.labels is None else stratified_order(images.labels, seed)


def fingerprint(splits: Mapping[str, Images] | Mapping[SplitName, Images]) -> str:
    """SHA-256 over the images and labels of a data set's own splits. Files count by path, size and time, not by content."""
    sha = hashlib.sha256()
    for name, images in sorted(splits.items()):
        sha.update(f"{name} {len(images)} {key(images, name)}".encode())
        if images.labels is not None:
            sha.update(images.labels.tobytes())
    return sha.hexdigest()
