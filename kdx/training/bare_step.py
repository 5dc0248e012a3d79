"""A training loop in plain PyTorch and torchvision, with which that of kdx is compared. Imports nothing else of kdx."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

TEMPERATURE = 4.0


def bare_step(
    student: nn.Module, teacher: nn.Module | None, optimizer: Optimizer, target: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that takes a step on images [B,C,R,R], by the teacher who has seen others, and returns its loss [].

    Without a teacher, `target` teaches: labels [B] or probabilities [B,K].
    """

    def step(images: Tensor, seen: Tensor) -> Tensor:
        logits = student(images) / TEMPERATURE
        if teacher is not None:
            with torch.no_grad():
                taught = teacher(seen) / TEMPERATURE
            loss = F.kl_div(logits.log_softmax(-1), taught.softmax(-1), reduction="batchmean") * TEMPERATURE**2
        else:
            assert target is not None
            loss = F.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


class Pictures(Dataset[Tensor]):
    """Images, uint8 [C,H,W], after a transform of PIL images to a tensor, as torchvision's own data sets give them."""

    def __init__(self, images: Sequence[NDArray[np.uint8]], transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        array = self.images[index]
        return self.transform(Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)))


def bare_batches(
    pictures: Pictures, batch_size: int, student_px: int, is_mixed: bool, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images of student and teacher [B,C,R,R] without end: shuffled, mixed if `is_mixed`, and resized for the student."""
    loader = DataLoader(pictures, batch_size, shuffle=True, drop_last=True)
    while True:
        for loaded in loader:
            seen = loaded.to(device)
            if is_mixed:
                share = torch.rand(())
                seen = share * seen + (1 - share) * seen[torch.randperm(len(seen))]
            same = seen.shape[-1] == student_px
            yield seen if same else F.interpolate(seen, student_px, mode="bilinear", antialias=True), seen
