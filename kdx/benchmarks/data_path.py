"""Loading and rendering, compared with plain PIL and PyTorch code by ratios; above 1 means that kdx is faster."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdx.benchmarks.machine import device
from kdx.costs.latency import synchronize
from kdx.data.decoding import ImageFiles
from kdx.data.loaders import ResidentLoader, StreamedLoader
from kdx.data.sampler import Sampler
from kdx.data.source import ArrayImages
from kdx.networks.network import Network
from kdx.types import Draw, Pair, View
from kdx.views.crops import Inception
from kdx.views.observer import Observer
from kdx.views.policies import SharedView, look
from kdx.views.render import render

Pixels = NDArray[np.uint8]
BATCH = 256
PAIRS = ((32, 32), (32, 16), (256, 224), (256, 128))


def best(action: Callable[[], object], repeats: int = 5) -> float:
    """Return the time in seconds of the fastest of `repeats` runs, after one warm-up run."""
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        synchronize(device())
        times.append(time.perf_counter() - began)
    return min(times)


def draw_of(count: int) -> Draw:
    """Return a draw of the first `count` examples."""
    return Draw(0, 0, 0, np.arange(count))


def render_rows(device: str) -> Iterator[tuple[str, str, str]]:
    """Crop and resize a batch, compared with PIL's crop().resize() per image."""
    for size, resolution in PAIRS:
        pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 3, size, size), np.uint8)
        sizes = np.full((BATCH, 2), size)
        view = look(Inception((0.25, 1.0)), "view", draw_of(BATCH), sizes, False)
        images = torch.from_numpy(pixels).to(device)
        pictures = [Image.fromarray(p.transpose(1, 2, 0)) for p in pixels]

        def bare(pictures: list[Image.Image] = pictures, view: View = view, size: int = size, to: int = resolution) -> None:
            for picture, box in zip(pictures, whole(view, size), strict=True):
                picture.crop(box).resize((to, to), Image.Resampling.BILINEAR)

        def full(pixels: Pixels = pixels, view: View = view, size: int = size, to: int = resolution) -> Tensor:
            resized = []
            for image, box in zip(pixels, whole(view, size), strict=True):
                picture = Image.fromarray(image.transpose(1, 2, 0))
                resized.append(np.asarray(picture.crop(box).resize((to, to), Image.Resampling.BILINEAR)))
            return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float().mul_(1 / 255)

        ours = best(lambda i=images, v=view, r=resolution: render(i, v, r))  # type: ignore[misc]  # mypy does not support lambdas with defaults
        ratios = f"{best(bare) / ours:.1f} x PIL's crop and resize alone, {best(full) / ours:.1f} x from array to batch"
        yield f"render {size} -> {resolution} px, {device}", f"{BATCH / ours:,.0f} images/s", ratios


def whole(view: View, size: int) -> list[tuple[int, int, int, int]]:
    """Return the boxes rounded to whole pixels, in PIL's format (left, top, right, bottom)."""
    return [(round(x), round(y), round(x + w), round(y + h)) for y, x, h, w in view.box * size]


def draw_row() -> tuple[str, str, str]:
    """Draw 512 views."""
    sizes = np.full((512, 2), 32)
    seconds = best(lambda: look(Inception(), "view", draw_of(512), sizes, True), 50)
    return "draw 512 views", f"{seconds * 1e3:.2f} ms", "aim: under 0.3 ms"


def resident_row(device: str) -> tuple[str, str, str]:
    """Share of the loader in a training step of a ResNet-20 on CIFAR-size images, batch 128."""
    rng = np.random.default_rng(0)
    images = ArrayImages(rng.integers(0, 256, (1280, 3, 32, 32), np.uint8), rng.integers(0, 10, 1280))
    observer = Observer(SharedView(Inception()), Pair(32, 32), 10, flip=True)
    loader = ResidentLoader(images, Sampler(1280, 128, train=True), observer.look, device=device)
    network = Network("cifar_resnet20", 10, 3).to(device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)

    def epoch(train: bool) -> None:
        for rendered in loader:
            batch = observer.finish(rendered)
            if train:
                assert batch.label is not None
                optimizer.zero_grad()
                F.cross_entropy(network(batch.student_images), batch.label).backward()
                optimizer.step()

    load, both = best(lambda: epoch(False), 3), best(lambda: epoch(True), 3)
    return f"resident 32 px + resnet20 step, {device}", f"{load / both:.1%} of the step", "aim: under 3 %"


class _Plain(Dataset[Tensor]):
    """Reference dataset: decode, crop and resize per image."""

    def __init__(self, files: list[Path], boxes: NDArray[np.float64]) -> None:
        self.files, self.boxes = files, boxes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        picture = Image.open(self.files[index]).convert("RGB")
        top, left, height, width = self.boxes[index] * np.array([picture.height, picture.width] * 2)
        box = (round(left), round(top), round(left + width), round(top + height))
        resized = picture.crop(box).resize((224, 224), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def streamed_row(num_workers: int) -> tuple[str, str, str]:
    """Load JPEG files of 500x375 px at 224 px, compared with a DataLoader that decodes, crops and resizes per image."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i}.jpg") for i in range(512)]
        for file in files[:64]:
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
            noise = rng.normal(0, 8, (375, 500, 3))
            Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(file, quality=90)
        for i, file in enumerate(files[64:]):
            file.write_bytes(files[i % 64].read_bytes())
        images = ImageFiles([str(file) for file in files], np.zeros(len(files), np.int64), 3)
        observer = Observer(SharedView(Inception((0.25, 1.0))), Pair(224, 224), 10)
        loader = StreamedLoader(images, Sampler(len(files), 64, train=True), observer.look, num_workers=num_workers)
        boxes = look(Inception((0.25, 1.0)), "view", draw_of(len(files)), np.tile([375, 500], (len(files), 1)), False).box
        plain = DataLoader(_Plain(files, boxes), 64, num_workers=num_workers, persistent_workers=num_workers > 0)
        ours, reference = best(lambda: list(loader), 3), best(lambda: list(plain), 3)
    name = f"streamed JPEG 500x375 -> 224 px, {num_workers} workers"
    return name, f"{len(files) / ours:,.0f} images/s", f"{reference / ours:.2f} x a plain loop"


def rows() -> Iterator[tuple[str, str, str]]:
    """Measure with one CPU thread, and on the GPU if available: what, the result, and with what it is compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from [*render_rows("cpu"), draw_row(), resident_row("cpu"), streamed_row(0), streamed_row(2)]
        if torch.cuda.is_available():
            yield from [*render_rows("cuda"), resident_row("cuda")]
    finally:
        torch.set_num_threads(threads)
