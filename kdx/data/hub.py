"""Image data sets of the Hugging Face hub, from its cache: parquet files or class folders of images; never foreign code."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from kdx.data import hub_files
from kdx.data.folders import ImageFolder
from kdx.data.hub_files import HubFiles
from kdx.data.layouts import shortened
from kdx.data.parquet import Parquet
from kdx.data.parquet_columns import stated_in_card
from kdx.data.source import Images, Source, SplitName
from kdx.ranges import Count, validated
from kdx.run.quiet import quiet

log = logging.getLogger("kdx")

NAME = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*")  # old data sets have no USER
WANTED = "data.root=USER/SET or USER/SET@REVISION, a data set on the Hugging Face hub"
CARD = "README.md"
TALKING = ("huggingface_hub._snapshot_download", "httpx", "httpx2")  # the HTTP libraries log each request


@dataclass(frozen=True)
class Snapshot:
    """The files of a data set at one commit, in the hub's cache."""

    folder: Path
    found: HubFiles
    card: Mapping[str, Any]

    @property
    def commit(self) -> str:
        """The commit."""
        return self.folder.name


@validated
class HubDataset(Source):
    """A data set USER/SET or USER/SET@REVISION of the Hugging Face hub; a revision is a branch, a tag or a commit.

    It is downloaded into the hub's own cache when it is first used, and read from there if the hub cannot be reached. `config`
    is the name of the part to use, `image` and `label` those of the columns; None infers them. `cache` is a folder for the
    images of parquet files, which are read by index there. `num_classes` and `channels` are as in `ImageFolder`.
    """

    def __init__(
        self,
        repository: str | None,
        num_classes: Count | None = None,
        channels: Literal[1, 3] | None = 3,
        config: str | None = None,
        image: str | None = None,
        label: str | None = None,
        cache: str = "~/.cache/kdx/hub",
    ) -> None:
        self.repository, self.config, self.image, self.label, self.cache = repository, config, image, label, cache
        self._num_classes, self._channels = num_classes, channels

    @functools.cached_property
    def _snapshot(self) -> Snapshot:
        return snapshot(self.repository, self.config)

    @functools.cached_property
    def _source(self) -> Source:
        at, name = self._snapshot, str(self.repository).partition("@")[0]
        if not at.found.parquet:
            return ImageFolder(str(at.folder / at.found.folder), self._num_classes, self._channels)
        return Parquet(
            {split: [at.folder / file for file in files] for split, files in at.found.parquet.items()},
            f"{name}@{at.commit}",
            stated_in_card(at.card, at.found.config),
            self._num_classes,
            self._channels,
            self.image,
            self.label,
            Path(self.cache).expanduser(),
        )

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]  # read from the data set
        return self._source.num_classes

    @property
    def names(self) -> Sequence[str] | None:  # type: ignore[override]  # read from the data set
        return self._source.names

    @property
    def channels(self) -> int:  # type: ignore[override]  # read from the data set
        return self._source.channels

    @property
    def revision(self) -> str | None:  # type: ignore[override]  # known once it is found
        return self._snapshot.commit

    def check(self) -> None:
        if self._snapshot.found.parquet or (self.image, self.label, self.config) == (None, None, None):
            self._source.check()
            return
        raise ValueError(
            f"{self.repository} has no parquet files but class folders of images: data.source.image, label and config have no "
            "meaning there; leave them out"
        )

    def remarks(self) -> Sequence[str]:
        return [*self._snapshot.found.remarks, *self._source.remarks()]

    def splits(self) -> Mapping[SplitName, Images]:
        return self._source.splits()


def snapshot(repository: str | None, config: str | None) -> Snapshot:
    """Return a data set in the hub's cache, which is downloaded first if the hub is reachable and has other files.

    Raises:
        ValueError: If there is no such data set with images and labels, or if it is neither reachable nor in the cache.
    """
    name, revision = _parse(repository)
    from huggingface_hub import HfApi, constants, errors

    from kdx.run import hub

    failed = f"Cannot read data.root={repository}"
    unreachable, refused, names = hub.why_unreachable(), None, []
    if unreachable is None:
        try:
            with quiet(*TALKING, level=logging.ERROR):
                names = [file.rfilename for file in HfApi().dataset_info(name, revision=revision).siblings or ()]
        except Exception as error:  # the hub's client has had three HTTP libraries, each with its own exceptions
            refused = hub.reason(error, f"datasets/{name}", "read")
            if isinstance(error, errors.RevisionNotFoundError):
                raise ValueError(f"{failed}: {refused}") from None
    offline = unreachable or refused
    try:
        folder = _fetch(name, revision, [CARD], offline=offline is not None)
    except Exception as error:
        if unreachable is None:
            raise ValueError(f"{failed}: {refused or hub.reason(error, f'datasets/{name}', 'read')}") from None
        remedy = "unset it" if constants.HF_HUB_OFFLINE else "connect"
        raise ValueError(
            f"{failed}: it is not in the cache {constants.HF_HUB_CACHE}, and {unreachable}: {remedy}, or copy the folder "
            f"datasets--{name.replace('/', '--')} into that cache, or correct the name"
        ) from None
    if offline is not None:
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        if not constants.HF_HUB_OFFLINE:
            log.warning("%s is read from the cache, at commit %s, because of this: %s", name, folder.name, offline)
    card = _card(folder / CARD)
    found = hub_files.find(name, names, card, config)
    try:
        folder = _fetch(name, revision, [CARD, *found.patterns], offline=offline is not None)
        if offline and (lacking := hub_files.missing_parts(names)):
            raise FileNotFoundError(f"only {shortened(lacking)}")
    except Exception as error:
        if offline is not None:
            text = f"{failed}: the cache has only some of its files ({hub.first_line(error)})"
            raise ValueError(f"{text}: download the others with a connection") from None
        raise ValueError(f"{failed}: {hub.reason(error, f'datasets/{name}', 'read')}") from None
    return Snapshot(folder, found, card)


def _parse(repository: str | None) -> tuple[str, str | None]:
    if repository is None:
        raise ValueError(f"Missing required option: {WANTED}")
    if os.path.isdir(os.path.expanduser(repository)):
        raise ValueError(f"data.root={repository} is a folder; expected {WANTED}. For a folder: data=imagefolder")
    name, _, revision = repository.partition("@")
    if NAME.fullmatch(name) is None:
        from kdx.run.hub import repository as without_address

        short = without_address(repository)
        hint = f": data.root={short}" if NAME.fullmatch(short) else ": correct data.root"
        raise ValueError(f"data.root={repository} is not a name on the hub; expected {WANTED}{hint}")
    return name, revision or None


def _fetch(name: str, revision: str | None, patterns: Sequence[str], *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    with quiet(*TALKING, level=logging.ERROR):
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=list(patterns), local_files_only=offline
            )
        )


def _card(file: Path) -> Mapping[str, Any]:
    """Return the metadata at the top of a README.md; empty if there are none that can be read."""
    try:
        _, above, _ = re.split(r"^---[ \t]*\r?$", file.read_text(encoding="utf-8-sig"), maxsplit=2, flags=re.MULTILINE)
        stated = yaml.safe_load(above)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return stated if isinstance(stated, dict) else {}
