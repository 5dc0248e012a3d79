"""A network in a file that another runtime than PyTorch runs, as kdx-export has written it."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

KEYS = ("pretrained_cfg", "interpolation", "label_names", "calibration_temperature", "calibration_temperature_folded")


class FileNetwork(nn.Module):
    """Maps images [B,C,R,R] in [0,1] to logits [B,K]; the file includes the normalization.

    Attributes:
        file: the file.
        card: what the file says of itself: preprocessing in the words of timm, class names, calibration temperature.
        in_channels, num_classes, side: C, K, and R in px.
    """

    def __init__(self, file: Path, card: dict[str, Any], num_classes: int) -> None:
        super().__init__()
        self.file, self.card, self.num_classes = file, card, num_classes
        self.in_channels, _, self.side = map(int, card["pretrained_cfg"]["input_size"])

    @property
    def colors(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, one value per channel."""
        return tuple(self.card["pretrained_cfg"]["mean"]), tuple(self.card["pretrained_cfg"]["std"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...


def card_of(notes: Callable[[str], str | None], file: Path, form: str) -> dict[str, Any]:
    """Return the card in the metadata of a file; ValueError if it has none.

    Args:
        notes: Returns the text that kdx-export has stored under a name, None if there is none.
        file: The file.
        form: Its format, for the message.
    """
    card: dict[str, Any] = {key: json.loads(notes(key) or "null") for key in KEYS}
    if not card["pretrained_cfg"]:
        raise ValueError(f"{file} has no metadata of kdx: export it with kdx-export run=FOLDER format=[{form}]")
    return card


def first_line(error: Exception) -> str:
    """Return the first line of an error of a runtime, or the name of its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
