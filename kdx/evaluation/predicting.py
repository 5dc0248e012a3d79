"""What a network says of image files: class, confidence and entropy, calibrated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdx.data.decoding import decode_image
from kdx.data.layouts import ENDINGS
from kdx.data.source import BadImageError
from kdx.evaluation.predictor import Predictor
from kdx.experiment.final_metrics import TEMPERATURES
from kdx.metrics import functional
from kdx.metrics.base import Prediction
from kdx.run.folder import RunFolder

BATCH = 64  # images that are decoded before the network sees them


@dataclass(frozen=True)
class Answer:
    """What a network says of an image: probabilities of the likeliest classes, the largest first, and entropy in nats."""

    file: str
    classes: list[str]
    probabilities: list[float]
    entropy: float

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, with `class` and `confidence` first."""
        first = {"file": self.file, "class": self.classes[0], "confidence": self.probabilities[0]}
        return first | asdict(self)


def images_in(given: Iterable[str]) -> list[Path]:
    """Return the image files that paths name, those in folders and below in their order. ValueError if there are none."""
    found: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.name.lower().endswith(ENDINGS) and file.is_file())
            if not below:
                raise ValueError(f"{path} contains no image ({' '.join(ENDINGS)})")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"{path}: file not found; give image files, or folders of them")
    return found


def fitted_temperature(folder: RunFolder) -> float:
    """Return the T that calibrates the student of a finished run on val, 1 if none was fitted."""
    return float(folder.read("metrics.json")["metrics"].get(TEMPERATURES["student_scaled"], 1.0))


@torch.inference_mode()
def answers(
    predictor: Predictor, temperature: float, files: Sequence[Path], top: int, bad: Callable[[str], None]
) -> Iterator[Answer]:
    """Yield what the network says of each image. `bad` gets the message for a file that cannot be decoded.

    Args:
        predictor: crops, resizes and normalizes as in the run's evaluation.
        temperature: T, by which logits are divided.
        files: image files.
        top: the number of classes to name.
        bad: receives messages.
    """
    for start in range(0, len(files), BATCH):
        for file, logits in _logits(predictor, files[start : start + BATCH], bad):
            prediction = Prediction.of(logits[None] / temperature)
            likeliest = prediction.probs[0].topk(min(top, logits.shape[-1]))
            names = predictor.class_names
            classes = [str(i) if names is None else names[i] for i in likeliest.indices.tolist()]
            entropy = functional.entropy(prediction.log_probs, prediction.probs)[0].item()
            yield Answer(str(file), classes, likeliest.values.tolist(), entropy)


def _logits(predictor: Predictor, files: Iterable[Path], bad: Callable[[str], None]) -> Iterator[tuple[Path, torch.Tensor]]:
    """Yield the logits [K] of each file, in float64; images of one size after another are one batch."""
    decoded: list[tuple[Path, np.ndarray[Any, Any]]] = []
    for file in files:
        try:
            decoded.append((file, decode_image(str(file), predictor.channels)))
        except BadImageError as error:
            bad(str(error).partition(": copy it again")[0])
    while decoded:
        shape = decoded[0][1].shape
        same = next((i for i, (_, image) in enumerate(decoded) if image.shape != shape), len(decoded))
        logits = predictor(torch.from_numpy(np.stack([image for _, image in decoded[:same]]))).to(torch.float64)
        yield from zip((file for file, _ in decoded[:same]), logits, strict=True)
        decoded = decoded[same:]
