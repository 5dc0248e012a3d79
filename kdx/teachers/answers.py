"""Answers of a teacher, kept in files that runs with the same teacher, data and views share."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from kdx.run.files import replacing
from kdx.teachers.kept import CARD, USERS

log = logging.getLogger("kdx")

Bits = Literal[16, 32]
NAME = "logits"  # of the table in a file
TOLERANCE = {16: 2e-3, 32: 1e-4}  # by which kept answers may differ from the teacher's, relative to the largest logit
RESIDENT = 256 * 2**20  # bytes of a table that is kept on the device


class Answers:
    """Uncalibrated logits [N,M,K] of all members, one file per epoch in the folder of a key; a row per image.

    Views are pure functions of seed, epoch and index, so that an epoch is known by its number. A file is whole or absent; one
    that was damaged later is found by its SHA-256 when it is opened, deleted, and computed again.

    Args:
        folder: That of the key, created when something is written.
        bits: Of a logit.
        card: What the key was made of, for `kdx-cache ls`.
        user: The folder of the run, from which `kdx-cache prune` knows whether the answers are in use.
    """

    def __init__(self, folder: Path, bits: Bits = 16, card: Mapping[str, Any] | None = None, user: Path | None = None) -> None:
        self.folder, self.bits, self.card, self.user = folder, bits, card, user

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
        if not self.has(epoch):
            return None
        table = sound_table(self._file(epoch))
        if table is None:
            log.warning("%s is damaged: the teacher answers again", self._file(epoch))
            self.forget(epoch)
        else:
            self._use()
        return table

    def forget(self, epoch: int) -> None:
        """Delete the answers of an epoch, as far as the folder can be written."""
        with suppress(OSError):
            self._file(epoch).unlink(missing_ok=True)

    def write(self, epoch: int, size: int, index: Tensor, logits: Tensor) -> None:
        """Write the table of an epoch with `size` rows from logits [B,M,K] of the images `index` [B]. OSError if it fails.

        Rows of other images, such as those of the last, incomplete batch, are NaN; nobody asks for them in that epoch.
        Several processes may write the same epoch at the same time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.card is not None and not (self.folder / CARD).is_file():
            with replacing(self.folder / CARD, several=True) as draft:
                draft.write_text(json.dumps(self.card, indent=1) + "\n", encoding="utf-8")
        self._use()
        table = torch.full((size, *logits.shape[1:]), torch.nan, dtype=self.dtype)
        table[index.cpu()] = logits.to("cpu", self.dtype)
        with replacing(self._file(epoch), several=True) as draft:
            save_file({NAME: table}, draft, {"sha256": _digest(table)})

    def _use(self) -> None:
        """Note which run uses the answers, and when; nothing where the folder cannot be written."""
        if self.user is None:
            return
        line = f"{self.user.absolute()}\n"
        with suppress(OSError), (self.folder / USERS).open("a+", encoding="utf-8") as file:
            file.seek(0)
            if line not in file.readlines():
                file.write(line)
        with suppress(OSError):
            (self.folder / USERS).touch()


def sound_table(file: Path) -> Tensor | None:
    """Return the table [N,M,K] in a file, mapped into memory; None if its SHA-256 is not that of its content."""
    try:
        with safetensors.safe_open(file, "pt") as content:
            table: Tensor = content.get_tensor(NAME)
            return table if content.metadata()["sha256"] == _digest(table) else None
    except (OSError, KeyError, TypeError, safetensors.SafetensorError):
        return None


def _digest(table: Tensor) -> str:
    return hashlib.sha256(table.numpy().data).hexdigest()


def placed(table: Tensor, device: torch.device) -> Tensor:
    """Return the table on the device, so that reading rows does not make the host wait; a large one stays mapped."""
    return table.to(device) if table.nbytes <= RESIDENT else table


def rows(table: Tensor, index: Tensor) -> Tensor:
    """Return the logits [M,B,K] of these images, float32, on the device of `index`."""
    return table[index.to(table.device)].transpose(0, 1).float().to(index.device)


def apart(kept: Tensor, live: Tensor, bits: Bits) -> float:
    """Return by how much kept logits [M,B,K] differ from the teacher's own, in units of what rounding explains."""
    difference = (kept - live).abs().max() / live.abs().max().clamp(min=1e-6)
    return torch.nan_to_num(difference / TOLERANCE[bits], torch.inf).item()  # NaN: a row that was never written
