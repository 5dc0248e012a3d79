"""The data of a run: read, split, checked and described before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kdx.config.errors import ConfigError
from kdx.config.schema import DataConfig, RunConfig
from kdx.data.cache import cached, key
from kdx.data.duplicates import MOST, stored_duplicates
from kdx.data.layouts import shortened
from kdx.data.source import SPLITS, Decoding, Images, Source, SplitName, check_splits, set_decoding
from kdx.data.splits import carve_configured, carved_from
from kdx.data.verification import listed, verify
from kdx.experiment.build import Parts
from kdx.training.ranks import rank

log = logging.getLogger("kdx")

Splits = Mapping[SplitName, Images]
COLORS = {1: "gray", 3: "RGB"}


def read_data(parts: Parts, *, describe: bool) -> tuple[Splits, dict[SplitName, Images]]:
    """Return the published splits of a run's data set, and its train, val and test as configured. Decodes no image.

    `describe`: log what was found.

    Raises:
        ConfigError: If files are missing, or if sizes do not fit the config.
    """
    published = read_splits(parts.config.data, parts.source)
    splits = carve_splits(parts.config.data, published)
    if describe and rank() == 0:
        log_data(parts, published, splits)
    return published, splits


def check_images(parts: Parts, published: Splits) -> dict[SplitName, Images]:
    """Return train, val and test after checking all image files, decoded on disk with `data.cache`.

    This takes long with many images, so all that can be checked without them is checked before.

    Raises:
        ConfigError: If files are damaged, unless they are to be skipped, or if the disk space is not enough.
    """
    data = parts.config.data
    verify_files(data, published, found_in(parts.config))
    return carve_splits(data, on_disk(data, published))


def found_in(config: RunConfig) -> Path:
    """Return the folder where runs store what they have found in image files."""
    return Path(config.outputs) / "verified"


def read_splits(data: DataConfig, source: Source) -> Splits:
    """Return the splits that the data set is published with. ConfigError if files are missing or invalid."""
    try:
        splits = source.splits()
        for images in splits.values() if isinstance(splits, Mapping) else ():
            if isinstance(images, Images):  # else `check_splits` says so
                set_decoding(images, Decoding(round(data.max_megapixels * 1e6), data.jpeg_px))
        check_splits(source, splits)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return splits


def on_disk(data: DataConfig, published: Splits) -> Splits:
    """Return the splits decoded on disk in `data.cache`; unchanged without it. ConfigError if the disk space is not enough."""
    if data.cache is None:
        return published
    try:
        return {name: cached(images, Path(data.cache), key(images, name), log.info) for name, images in published.items()}
    except ValueError as error:
        raise ConfigError(str(error)) from None


def carve_splits(data: DataConfig, published: Splits) -> dict[SplitName, Images]:
    """Return train, val and test as configured, from the published splits. Decodes no image.

    Raises:
        ConfigError: If a split is missing or empty, or if train has less than a batch.
    """
    try:
        splits = carve_configured(published, data)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    empty = [name for name, images in splits.items() if not len(images)]
    if empty:
        raise ConfigError(f"Split {empty[0]} is empty: increase data.{empty[0]}_share, or use more images")
    if data.batch_size > len(splits["train"]):
        size = len(splits["train"])
        raise ConfigError(
            f"Invalid data.batch_size={data.batch_size} for {size} training images: use data.batch_size={size} or less"
        )
    return splits


def verify_files(data: DataConfig, published: Splits, folder: Path) -> None:
    """Check all image files, unless `data.verify` is false; what was found is stored in `folder` for later runs.

    Raises:
        ConfigError: If files are damaged and `data.on_bad_image` is not "skip"; it names them all.
    """
    if not data.verify:
        return
    found = verify(published, folder, log.info)
    if found.damaged and data.on_bad_image == "raise":
        text = listed(found.damaged, found.images)
        raise ConfigError(f"{text}. Copy them again, delete them, or use data.on_bad_image=skip")
    if found.damaged:
        log.warning("%s. They are skipped (data.on_bad_image=skip)", listed(found.damaged, found.images))
    if found.colored:
        text = "%d of %d images have colors, but are read in gray: set data.channels=3 to keep the colors"
        log.warning(text, found.colored, found.checked)


def log_data(parts: Parts, published: Splits, splits: Splits) -> None:
    """Log the sizes of the splits, the classes and the colors; warn of files that are not used and of absent classes."""
    data, source, num_classes = parts.config.data, parts.source, parts.num_classes
    sizes = ", ".join(f"{len(images)} {name}" for name, images in sorted(splits.items(), key=_order))
    colors = COLORS.get(source.channels, f"{source.channels} channels")
    labels = "" if source.train_labels else ", train without labels"
    revision = f", revision {source.revision}" if source.revision else ""
    log.info("Data: %s images of %d classes, %s%s%s", sizes, num_classes, colors, labels, revision)
    carved = [f"{name} from {origin}" for name, origin in carved_from(published, data.test_from).items()]
    if carved:
        log.info("Carved by data.split_seed=%d: %s", data.split_seed, ", ".join(carved))
    for text in (*source.remarks(), *absent_classes(splits, source.names, num_classes)):
        log.warning("%s", text)


def _order(item: tuple[SplitName, Images]) -> int:
    return SPLITS.index(item[0])


def warn_of_duplicates(data: DataConfig, splits: Splits, folder: Path) -> int | None:
    """Return the number of test images that are also training images, and log a warning if it is not 0. On the first rank.

    It is stored in `folder` for later runs. None: not searched, by `data.check_duplicates` or because the images are neither
    files nor in memory.
    """
    if rank() > 0 or data.check_duplicates is False:
        return None
    train, test = splits["train"], splits["test"]
    if data.check_duplicates == "auto" and len(train) + len(test) > MOST:
        text = "Not searched for test images in train: more than %s images. data.check_duplicates=true searches them"
        log.info(text, f"{MOST:,}")
        return None
    duplicates = stored_duplicates(train, test, folder)
    if duplicates:
        log.warning("%d of %d test images are also in train: test metrics are optimistic", duplicates, len(test))
    return duplicates


def absent_classes(splits: Splits, names: Sequence[str] | None, num_classes: int) -> list[str]:
    """Return a sentence, with the names, for each labeled split that has no image of some classes."""
    texts = []
    for split, images in sorted(splits.items(), key=_order):
        if images.labels is None:
            continue
        absent = np.flatnonzero(np.bincount(images.labels, minlength=num_classes) == 0)
        shown = [f"'{names[k]}'" if names is not None and k < len(names) else str(k) for k in absent.tolist()]
        if len(absent):
            effect = "they cannot be learned from its labels" if split == "train" else "its metrics do not cover them"
            texts.append(f"{split} has no image of {len(absent)} of {num_classes} classes ({shortened(shown)}): {effect}")
    return texts
