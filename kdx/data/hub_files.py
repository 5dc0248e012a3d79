"""Which files of a repository on the Hugging Face hub are a data set of images, by their names and the data set's card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from kdx.config.errors import nearest
from kdx.data.layouts import ENDINGS, SPLIT_OF, WORD, shortened, split_of
from kdx.data.source import SPLITS, SplitName

CONVERTED = "refs/convert/parquet"  # the branch in which the hub keeps its own conversion of a data set
DEFAULT = "default"
PART = re.compile(r"(.*)-\d+-of-(\d+)(?:-\w+)?\.parquet")
UNPACK = {
    (".zip", ".tar.gz", ".tgz", ".7z", ".rar"): "archives, {}: unpack them and use data=imagefolder data.root=FOLDER",
    (".tar",): "tar files, {}: use data=webdataset data.root=FOLDER",
}


@dataclass(frozen=True)
class HubFiles:
    """The files of a data set: parquet files by split, or else all images in `folder`.

    `patterns` select them, as in `huggingface_hub.snapshot_download`; `remarks` are sentences on what is not used.
    """

    patterns: Sequence[str]
    config: str = DEFAULT
    parquet: Mapping[SplitName, Sequence[str]] = field(default_factory=dict)
    folder: str = ""
    remarks: Sequence[str] = ()


def find(repository: str, names: Sequence[str], card: Mapping[str, Any], config: str | None) -> HubFiles:
    """Return which files of a repository are its data.

    Args:
        repository: USER/SET, for messages.
        names: The paths of all files of the repository.
        card: The metadata of its README.md.
        config: The name of the part (`config_name` on the hub) to use; None: the only one, or the default.

    Raises:
        ValueError: If there are no images with labels in a form that can be read without foreign code, or if `config` does
            not determine them.
    """
    visible = sorted(name for name in names if not name.startswith("."))
    if parquet := [name for name in visible if name.endswith(".parquet")]:
        return _of_parquet(repository, parquet, card, config)
    images = [name for name in visible if name.lower().endswith(ENDINGS)]
    tops = {name.split("/")[0] for name in images if name.count("/") >= 1}
    inner = any(name.startswith("data/") and name.count("/") >= 2 for name in images)
    if any(name.count("/") >= 1 for name in images):
        splits = any(split_of(top) for top in tops)
        suffixes = sorted({name[name.rindex(".") :] for name in images})
        return HubFiles([f"*{suffix}" for suffix in suffixes], folder="data" if inner and not splits else "")
    raise ValueError(_refusal(repository, visible))


def _refusal(repository: str, names: Sequence[str]) -> str:
    scripts = [name for name in names if name.endswith(".py") and "/" not in name]
    if scripts:
        return (
            f"{repository} needs its loading script {scripts[0]}, and kdx runs no code from the hub: use the hub's own "
            f"conversion, data.root={repository}@{CONVERTED}, or another data set"
        )
    got = f"`hf download {repository} --repo-type dataset --local-dir FOLDER`"
    for endings, what in UNPACK.items():
        if found := [name for name in names if name.endswith(endings)]:
            return f"{repository} has {what.format(shortened(found))}, after {got}"
    return (
        f"{repository} has neither parquet files nor images in class folders, only {shortened(names) or 'no file'}: try the "
        f"hub's own conversion, data.root={repository}@{CONVERTED}, or use another data set"
    )


def _of_parquet(repository: str, names: Sequence[str], card: Mapping[str, Any], config: str | None) -> HubFiles:
    parts = _stated(names, card) or _by_folder(names)
    chosen = _choose(repository, list(parts), config, str(_default_of(card)))
    splits: dict[SplitName, list[str]] = {}
    unused: list[str] = []
    for title, files in parts[chosen].items():
        split = split_of(title)
        if split is None:
            unused.append(title)
        elif split in splits:
            raise ValueError(f"{repository} has two {split} splits, one of them {title}: use another data.source.config")
        else:
            splits[split] = files
    if not splits:
        raise ValueError(
            f"{repository} has the splits {shortened(unused)}, of which none is train, validation or test: download it and "
            "name its files so"
        )
    remarks = [f"The split {title} of {repository} is not used: it is not train, validation or test" for title in unused]
    if partial := [name for files in splits.values() for name in files if "partial-" in name]:
        remarks.append(f"{partial[0]} says that the hub has converted only a part of {repository}")
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    patterns = [re.sub(r"([*?[])", r"[\1]", name) for files in ordered.values() for name in files]
    return HubFiles(patterns, chosen, ordered, remarks=remarks)


Parts = dict[str, dict[str, list[str]]]  # name of a config -> name of a split -> files


def _stated(names: Sequence[str], card: Mapping[str, Any]) -> Parts:
    """Return the parts that the card states in `configs`, with those of their files that exist; empty if it states none."""
    found: Parts = {}
    for one in _list(card.get("configs")):
        splits: dict[str, list[str]] = {}
        for entry in _list(one.get("data_files")) if isinstance(one, Mapping) else ():
            stated = entry if isinstance(entry, Mapping) else {"path": entry}
            patterns = [str(path).removeprefix("./") for path in _list(stated.get("path"))]
            files = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
            named = {str(stated["split"]): files} if "split" in stated else _by_name(files)
            for split, of_split in named.items():
                splits.setdefault(split, []).extend(of_split)
        if splits := {split: files for split, files in splits.items() if files}:
            found[str(one.get("config_name", DEFAULT))] = splits
    return found


def _by_folder(names: Sequence[str]) -> Parts:
    """Return the parts by the folders of the files: CONFIG/train-00000-of-00001.parquet, CONFIG/train/0000.parquet."""
    groups: dict[str, list[str]] = {}
    for name in names:
        folders = [part for part in name.split("/")[:-1] if part != "data" and not WORD.search(part)]
        groups.setdefault(folders[0] if folders else DEFAULT, []).append(name)
    return {config: _by_name(files) for config, files in groups.items()}


def _by_name(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the files by the split that the name of the file or of its folder tells; all are train if none tells one."""
    found: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        words = WORD.findall(file) or WORD.findall(folder)
        found.setdefault(SPLIT_OF[words[-1].lower()] if words else "", []).append(name)
    rest = found.pop("", [])
    return found or {"train": rest}


def _choose(repository: str, parts: Sequence[str], config: str | None, default: str) -> str:
    if config is not None:
        if config not in parts:
            hint = nearest(config, list(parts))
            raise ValueError(f"{repository} has no part '{config}'.{hint} Available: data.source.config={'|'.join(parts)}")
        return config
    if len(parts) == 1:
        return parts[0]
    if default in parts:
        return default
    raise ValueError(f"{repository} has several parts: choose one of data.source.config={'|'.join(parts)}")


def _default_of(card: Mapping[str, Any]) -> Any:
    stated = (one for one in _list(card.get("configs")) if isinstance(one, Mapping))
    return next((one.get("config_name") for one in stated if one.get("default") is True), DEFAULT)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def missing_parts(names: Sequence[str]) -> list[str]:
    """Return a sentence for each group NAME-00000-of-00003.parquet of which files are missing, as in a partial download."""
    counts: dict[tuple[str, int], int] = {}
    for name in names:
        if match := PART.fullmatch(name):
            key = match[1], int(match[2])
            counts[key] = counts.get(key, 0) + 1
    return [f"{count} of {total} files {stem}-*.parquet" for (stem, total), count in counts.items() if count < total]
