"""Answers of a teacher to the views of training, kept in files that runs with the same teacher, data and views share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger("kdx")

Bits = Literal[16, 32]
PIECE = 1 << 24  # bytes that are hashed at a time


class Answers:
    """Uncalibrated logits [N,M,K] of all members, one file per epoch in the folder of a key; a row per training image.

    Views are pure functions of seed, epoch and index, so that an epoch is known by its number. Each file has its SHA-256
    beside it, and both are written before they have their names: what is there is whole, and what was damaged later is found
    when it is opened, deleted, and computed again.
    """

    def __init__(self, folder: Path, bits: Bits = 16) -> None:
        self.folder, self.bits = folder, bits

    def _file(self, epoch: int) -> Path:
        return self.folder / f"{epoch:05d}-{self.bits}.npy"

    def has(self, epoch: int) -> bool:
        """Return whether the answers of this epoch are there; `open` tells whether they are sound."""
        file = self._file(epoch)
        return file.is_file() and file.with_suffix(".json").is_file()

    def open(self, epoch: int) -> NDArray[np.floating] | None:
        """Return the table of an epoch, mapped into memory; None if it is not there, or was damaged and is now deleted."""
        if not self.has(epoch):
            return None
        file = self._file(epoch)
        try:
            expected = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
            if _digest(file) == expected:
                return np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError):
            pass
        log.warning("%s is damaged: the teacher answers again", file)
        for path in (file.with_suffix(".json"), file):
            path.unlink(missing_ok=True)
        return None

    def write(self, epoch: int, size: int, index: Tensor, logits: Tensor) -> None:
        """Write the table of an epoch with `size` rows from logits [B,M,K] of the images `index` [B]. OSError if it fails.

        Rows of other images, such as those of the last, incomplete batch, are NaN; nobody asks for them in that epoch.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file, draft = self._file(epoch), self.folder / f"{epoch:05d}.{uuid.uuid4().hex}.part"  # several machines may write
        note = draft.with_suffix(".note")
        try:
            shape = (size, *logits.shape[1:])
            table = np.lib.format.open_memmap(draft, mode="w+", dtype=f"float{self.bits}", shape=shape)
            table[:] = np.nan
            table[index.cpu().numpy()] = logits.cpu().numpy()
            table.flush()
            del table
            digest = _digest(draft)
            with draft.open("rb+") as stream:
                os.fsync(stream.fileno())
            note.write_text(json.dumps({"sha256": digest}), encoding="utf-8")
            os.replace(draft, file)
            os.replace(note, file.with_suffix(".json"))
        finally:
            draft.unlink(missing_ok=True)
            note.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    sha = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            sha.update(piece)
    return sha.hexdigest()


def rows(table: NDArray[np.floating], index: Tensor) -> Tensor:
    """Return the logits [M,B,K] of these images, float32, on the device of `index`."""
    found = torch.from_numpy(np.asarray(table[index.cpu().numpy()], np.float32))
    return found.transpose(0, 1).to(index.device)
