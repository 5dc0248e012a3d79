"""The folders of a data set as people have them: names of splits, files that are no data, known layouts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdx.data.source import SplitName

# As in Hugging Face's `datasets` (data_files.py), with "validate", "devel" and "development" in addition.
WORDS: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_OF: Mapping[str, SplitName] = {word: split for split, words in WORDS.items() for word in words}
_NAME = re.compile(rf"({'|'.join(SPLIT_OF)})(?:[-_ ]?(?:set|split|data|dataset|images?|imgs?))?", re.IGNORECASE)
_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_OF)})(?![a-z])", re.IGNORECASE)

# Folders that operating systems and storage devices add.
JUNK = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found")
# Folders of detection and segmentation data sets, which are no classes.
CONTENTS = ("images", "imgs", "labels", "masks", "annotations", "bboxes", "jpegimages", "xmls", "json")
TINY_LIST = "val_annotations.txt"  # Tiny-ImageNet's list of the classes of val/images/
ILSVRC_VAL = "ILSVRC2012_val_"


def is_junk(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or was added by a system."""
    return name.startswith(".") or name.lower() in JUNK


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and those that systems add."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_junk(entry.name))


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder's name stands for, in any case: "Valid" -> "val", "test_set" -> "test"; else None."""
    match = _NAME.fullmatch(name)
    return SPLIT_OF[match[1].lower()] if match else None


def split_folders(root: Path) -> dict[SplitName, str]:
    """Return the names of the folders in `root` that are named like splits. ValueError if two are of the same split."""
    found: dict[SplitName, str] = {}
    for name in subfolders(root):
        split = split_of(name)
        if split is None:
            continue
        if split in found:
            raise ValueError(
                f"{root} has a {found[split]} and a {name} folder, two names of the {split} split: remove or rename one of them"
            )
        found[split] = name
    return found


def disguised_splits(names: Sequence[str]) -> list[str]:
    """Return the names that differ only in the word for a split, one of them train: ["seg_test", "seg_train"]; else none."""
    stems: dict[str, dict[SplitName, str]] = {}
    for name in names:
        for match in _WORD.finditer(name):
            stem = (name[: match.start()] + "*" + name[match.end() :]).lower()
            stems.setdefault(stem, {}).setdefault(SPLIT_OF[match[0].lower()], name)
    return next((list(splits.values()) for splits in stems.values() if "train" in splits and len(splits) > 1), [])


def has_flat_imagenet_val(folder: Path) -> bool:
    """Return whether a folder contains ILSVRC2012_val_*.JPEG, as ILSVRC2012_img_val.tar unpacks them."""
    with os.scandir(folder) as entries:
        return any(entry.name.startswith(ILSVRC_VAL) for entry in entries)


def read_tiny_imagenet_list(folder: Path, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return files and labels of Tiny-ImageNet's val folder, in the order of its val_annotations.txt.

    Each line has the name of a file in `images/`, a tab, its class and further columns. ValueError if the file is invalid.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    paths: list[str] = []
    labels: list[int] = []
    for number, line in enumerate((folder / TINY_LIST).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        file, _, rest = line.partition("\t")
        name = rest.partition("\t")[0].strip()
        if name not in label_of:
            raise ValueError(
                f"{folder / TINY_LIST}, line {number}: '{name}' is no class folder of train: unpack Tiny-ImageNet again, or "
                f"remove {TINY_LIST} and sort the images into class folders"
            )
        paths.append(str(folder / "images" / file))
        labels.append(label_of[name])
    return paths, labels
