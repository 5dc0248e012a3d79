"""Checkpoints as files: written whole or not at all, on any file system, and the last but one is kept."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import TorchCheckpointIO

from kdx.run.files import replacing
from kdx.run.folder import LAST, PREVIOUS


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place, onto the disk, and renames it; Lightning writes by way of the temporary folder.

    Before `last.ckpt` is replaced, the one that is there becomes `previous.ckpt`, in case the disk damages the new one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        link = _linked(path) if path.name == LAST else None
        try:
            with replacing(path) as draft:
                torch.save(checkpoint, draft)
            if link is not None:
                os.replace(link, path.with_name(PREVIOUS))
        finally:
            if link is not None:
                link.unlink(missing_ok=True)


def _linked(last: Path) -> Path | None:
    """Return a second name of the last checkpoint, under which it stays; None if there is none, or if it is damaged."""
    link = last.with_name(f".{PREVIOUS}.part")
    link.unlink(missing_ok=True)
    if not zipfile.is_zipfile(last):  # a damaged one does not replace the good one before it
        return None
    try:
        os.link(last, link)
    except OSError:  # a file system without links
        return None
    return link
