"""The folders of kept answers: what is in them, whether it is sound, and what may go."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdx.run import job

CARD, USERS = "card.json", "users.txt"  # what the key was made of; the folders of the runs that used the answers
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Kept:
    """The answers of one key: the folder, what the key was made of, the files, their bytes and the time of the last use."""

    folder: Path
    card: dict[str, Any]
    files: tuple[Path, ...]
    size: int
    used: float  # seconds since 1970

    @property
    def teacher(self) -> str:
        """The architectures of the teacher's members and the first digits of their weights' SHA-256."""
        members = self.card.get("teacher") or []
        return ", ".join(f"{card.get('architecture')} {sha[:8]}" for sha, card, _ in members) or "unknown"

    @property
    def images(self) -> str:
        """Which images of which data, by the first digits of its fingerprint: those of training, or a split's."""
        shown = self.card.get("shown")
        return f"{str(self.card.get('data', 'unknown'))[:8]}, {'train' if shown is None else shown[0]}"

    @property
    def views(self) -> str:
        """The rule and the seed of the views, the crop of val and test, and the resolution in px."""
        views = self.card.get("views") or self.card.get("crop") or {}
        crop = views.get("crop") or views.get("teacher_crop") or views
        seed = f", seed {self.card['seed']}" if "seed" in self.card else ""
        sides = "/".join(map(str, dict.fromkeys(self.card.get("resolution") or ["?"])))
        return f"{str(crop.get('_target_', 'unknown')).rpartition('.')[2]}{seed}, {sides} px"

    @property
    def bits(self) -> str:
        """Bits of a logit."""
        return "/".join(sorted({file.stem.rpartition("-")[2] for file in self.files}))

    @property
    def in_use(self) -> bool:
        """Whether a run that used the answers is still running, as far as this machine can see its folder."""
        try:
            runs = (self.folder / USERS).read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return any(job.is_held(Path(run)) for run in runs)


def kept_in(root: Path) -> list[Kept]:
    """Return the answers below a folder, those used last first; none if it is not there."""
    return sorted(_found(root), key=lambda kept: -kept.used) if root.is_dir() else []


def _found(root: Path) -> Iterator[Kept]:
    for folder in (root, *root.iterdir()):
        if not folder.is_dir():
            continue
        files = sorted(folder.glob(f"*{SUFFIX}"))
        if not files and not (folder / CARD).is_file():
            continue
        card: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        states = [path.stat() for path in (*files, folder / CARD, folder / USERS, *folder.glob(".*.part")) if path.is_file()]
        used = max(state.st_mtime for state in states)
        yield Kept(folder, card, tuple(files), sum(state.st_size for state in states), used)


def surplus(found: Sequence[Kept], keep: int | None, older: float | None) -> list[Kept]:
    """Return what may go: answers that were not used for `older` seconds, and those used least lately beyond `keep` bytes.

    What a living run uses stays, and counts.
    """
    gone, room = [], keep
    for kept in sorted(found, key=lambda kept: (not kept.in_use, -kept.used)):
        is_old = older is not None and time.time() - kept.used > older
        is_much = room is not None and kept.size > room
        if (is_old or is_much) and not kept.in_use:
            gone.append(kept)
        elif room is not None:
            room -= kept.size
    return gone


def remove(kept: Kept) -> None:
    """Delete the folder of a key. OSError if it cannot be deleted."""
    shutil.rmtree(kept.folder)
