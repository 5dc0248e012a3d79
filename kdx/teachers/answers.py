"""Answers of a teacher to the views of training, kept in files that runs with the same teacher, data and views share."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Literal

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from kdx.run.files import replacing

log = logging.getLogger("kdx")

Bits = Literal[16, 32]
NAME = "logits"  # of the table in a file


class Answers:
    """Uncalibrated logits [N,M,K] of all members, one file per epoch in the folder of a key; a row per training image.

    Views are pure functions of seed, epoch and index, so that an epoch is known by its number. A file is whole or absent; one
    that was damaged later is found by its SHA-256 when it is opened, deleted, and computed again.
    """

    def __init__(self, folder: Path, bits: Bits = 16) -> None:
        self.folder, self.bits = folder, bits

    @property
    def dtype(self) -> torch.dtype:
        """The type in which logits are kept."""
        return torch.float16 if self.bits == 16 else torch.float32

    def _file(self, epoch: int) -> Path:
        return self.folder / f"{epoch:05d}-{self.bits}.safetensors"

    def has(self, epoch: int) -> bool:
        """Return whether the answers of this epoch are there; `open` tells whether they are sound."""
        return self._file(epoch).is_file()

    def open(self, epoch: int) -> Tensor | None:
        """Return the table [N,M,K] of an epoch, mapped into memory; None if it is absent, or was damaged and is now deleted."""
        file = self._file(epoch)
        if not file.is_file():
            return None
        try:
            with safetensors.safe_open(file, "pt") as content:
                table: Tensor = content.get_tensor(NAME)
                if content.metadata()["sha256"] == _digest(table):
                    return table
        except (OSError, KeyError, safetensors.SafetensorError):
            pass
        log.warning("%s is damaged: the teacher answers again", file)
        file.unlink(missing_ok=True)
        return None

    def write(self, epoch: int, size: int, index: Tensor, logits: Tensor) -> None:
        """Write the table of an epoch with `size` rows from logits [B,M,K] of the images `index` [B]. OSError if it fails.

        Rows of other images, such as those of the last, incomplete batch, are NaN; nobody asks for them in that epoch.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        table = torch.full((size, *logits.shape[1:]), torch.nan, dtype=self.dtype)
        table[index.cpu()] = logits.cpu()
        with replacing(self._file(epoch)) as draft:
            save_file({NAME: table}, draft, {"sha256": _digest(table)})


def _digest(table: Tensor) -> str:
    return hashlib.sha256(table.numpy().data).hexdigest()


def rows(table: Tensor, index: Tensor) -> Tensor:
    """Return the logits [M,B,K] of these images, float32, on the device of `index`."""
    return table[index.cpu()].transpose(0, 1).float().to(index.device)
