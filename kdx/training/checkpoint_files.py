"""Checkpoints as files: written whole or not at all, on any file system, and the last but one is kept."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import TorchCheckpointIO

from kdx.run.folder import LAST, PREVIOUS


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place, onto the disk, and renames it; Lightning writes by way of the temporary folder.

    Before `last.ckpt` is replaced, the one that is there becomes `previous.ckpt`, in case the disk damages the new one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.part")
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST and zipfile.is_zipfile(path):  # a damaged one does not replace the good one before it
                _keep(path)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _keep(last: Path) -> None:
    """Give the last checkpoint its second name, under which it stays; there is a `last.ckpt` at every moment."""
    link = last.with_name(f".{PREVIOUS}.part")
    link.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a file system without links
        os.link(last, link)
        os.replace(link, last.with_name(PREVIOUS))
