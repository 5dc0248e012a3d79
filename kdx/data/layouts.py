"""The folders of a data set as people have them: names of splits, files that are no data, known layouts."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
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
WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_OF)})(?![a-z])", re.IGNORECASE)

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")
TREE = "ROOT/train/CLASS/IMAGE, optionally ROOT/val/CLASS/IMAGE and ROOT/test/CLASS/IMAGE; or only ROOT/CLASS/IMAGE"
NAMED = 5  # folders in a message
SAMPLE = 64  # images that the number of channels is inferred from, and classes that are searched for splits

# Folders that operating systems and storage devices add.
JUNK = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found")
# Folders of detection and segmentation data sets, which are no classes.
CONTENTS = ("images", "imgs", "labels", "masks", "annotations", "bboxes", "jpegimages", "xmls", "json")
TINY_LIST = "val_annotations.txt"  # Tiny-ImageNet's list of the classes of val/images/
ILSVRC_VAL = "ILSVRC2012_val_"
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


def is_junk(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or was added by a system."""
    return name.startswith(".") or name.lower() in JUNK


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and those that systems add."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_junk(entry.name))


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


def count_images(folder: Path) -> int:
    """Return the number of image files directly in a folder."""
    with os.scandir(folder) as entries:
        return sum(entry.name.lower().endswith(ENDINGS) and not is_junk(entry.name) and entry.is_file() for entry in entries)


def nested_classes(folder: Path, classes: Sequence[str]) -> str | None:
    """Return a sentence if class folders contain folders, which are no classes; None if none does.

    Folders such as `images`, as in Tiny-ImageNet, are not mentioned. The sentence has a remedy if no image is directly in a
    class folder.
    """
    inner = {name: [below for below in subfolders(folder / name) if below.lower() not in CONTENTS] for name in classes}
    outer = [name for name in classes if inner[name]]
    if not outer:
        return None
    lower = shortened(list(dict.fromkeys(itertools.chain(*inner.values()))))
    text = (
        f"The classes are the folders directly in {folder} ({shortened(classes)}). {shortened(outer)} "
        f"{'contains' if len(outer) == 1 else 'contain'} folders ({lower}): their images have the class of the folder above"
    )
    if len(outer) < len(classes) or any(count_images(folder / name) for name in classes):
        return text
    return f"{text}. If the inner folders are the classes, move them directly into {folder}"


def shortened(names: Sequence[str]) -> str:
    """Return the first names, with ", ..." for the others."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


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
        for match in WORD.finditer(name):
            stem = (name[: match.start()] + "*" + name[match.end() :]).lower()
            stems.setdefault(stem, {}).setdefault(SPLIT_OF[match[0].lower()], name)
    return next((list(splits.values()) for splits in stems.values() if "train" in splits and len(splits) > 1), [])


def check_no_splits(root: Path, names: Sequence[str]) -> None:
    """Raise ValueError if the folders in `root`, which would be classes, are splits or contain splits."""
    if disguised := disguised_splits(names):
        raise ValueError(
            f"{root} has {' and '.join(disguised)}, which look like splits, not classes. Expected layout: {TREE}. "
            "Rename them to train, val and test, or set data.root to one of them"
        )
    for name in names[:SAMPLE]:
        inner = [split for split in subfolders(root / name) if split_of(split) is not None]
        if any(split_of(split) == "train" for split in inner):
            remedy = f"set data.root={root / name}" if len(names) == 1 else "move the splits above the classes"
            raise ValueError(f"{root / name} contains {' and '.join(inner)}. Expected layout: {TREE}; {remedy}")


def has_flat_imagenet_val(folder: Path) -> bool:
    """Return whether a folder contains ILSVRC2012_val_*.JPEG, as ILSVRC2012_img_val.tar unpacks them."""
    with os.scandir(folder) as entries:
        return any(entry.name.startswith(ILSVRC_VAL) for entry in entries)


def is_sorted(folder: Path) -> bool:
    """Return whether the images of a split are in class folders; else Tiny-ImageNet's list has their classes."""
    return subfolders(folder) != ["images"] or not (folder / TINY_LIST).is_file()


def is_unlabeled_tiny_test(root: Path, found: Mapping[SplitName, str]) -> bool:
    """Return whether the test folder is that of Tiny-ImageNet as published, without labels."""
    return (
        {"val", "test"} <= set(found) and subfolders(root / found["test"]) == ["images"] and not is_sorted(root / found["val"])
    )


def check_unsorted(folder: Path, split: SplitName) -> None:
    """Raise ValueError for a split without class folders, unless it is Tiny-ImageNet's val."""
    if not is_sorted(folder):
        return
    if has_flat_imagenet_val(folder):
        raise ValueError(f"{folder} is ImageNet's val; {SORT_VAL}")
    raise ValueError(
        f"{folder} has no class folders, so its images have no labels. Expected layout: {TREE}. Sort them into class folders, "
        f"or move {folder.name} elsewhere, and {split} is carved from train"
    )


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
