"""What rounding to int8 does to a student: agreement, accuracy, calibration, size and latency before and after."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdx.config.check import load
from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.costs.latency import AGREE
from kdx.data.source import Images, Source, SplitName
from kdx.data.splits import carve_configured
from kdx.evaluation.measure import Bench
from kdx.evaluation.measured_networks import MeasuredNetworks
from kdx.experiment import build
from kdx.experiment.data import carve_splits, on_disk, read_splits
from kdx.export.finished import FinishedRun
from kdx.export.request import FEWEST
from kdx.metrics.assessment import Assessment
from kdx.training.final_pass import FinalPass
from kdx.training.logit_store import LogitStore
from kdx.training.step import forward
from kdx.types import Pair
from kdx.views.render import Resizing

log = logging.getLogger("kdx")

LOSS = 0.02  # of accuracy on val, above which a warning is logged
REMEDY = "restore the data set, or export without int8: format=[timm,safetensors,onnx]"


@dataclass(frozen=True)
class RunImages:
    """The images of a run: `train`, from which int8 takes its ranges; `measured`: val and, unless the run reserves it, test."""

    config: RunConfig
    train: Images
    measured: Mapping[SplitName, Images]

    def bench(self, networks: MeasuredNetworks) -> Bench:
        """Return where a student of the run sees images as in the run's evaluation."""
        config = self.config
        networks.resolution = Pair(config.resolution.teacher, networks.resolution.student)
        networks.resizing = Resizing(*config.interpolation.in_evaluation)
        crop = networks.crop or build.make(config.data.eval_crop, "data.eval_crop")
        return Bench(networks, torch.arange(networks.student.num_classes), crop, config.data, torch.device("cpu"))

    def train_batches(self, networks: MeasuredNetworks) -> Iterator[Tensor]:
        """Yield the images of train as the student sees val and test, [B,C,R,R] in [0,1], in a fixed order."""
        for batch in self.bench(networks).batches(self.train, networks.resolution.student):
            yield batch.student_images


def run_images(run: FinishedRun, num_train: int) -> RunImages:
    """Return the images of a finished run, with `num_train` of its training images, in the proportions of the classes.

    Raises:
        ConfigError: If the data set is not there, or has too few training images.
    """
    try:
        config = load(run.path / "config.yaml")
        source: Source = build.make(config.data.source, "data.source")
        source.check()
        published = on_disk(config.data, read_splits(config.data, source))
        splits = carve_splits(config.data, published)
    except ValueError as error:
        raise ConfigError(f"int8 needs the images of the run ({error}): {REMEDY}") from None
    available = len(splits["train"])
    if available < FEWEST:
        raise ConfigError(f"int8 needs at least {FEWEST} training images, but the run has {available}: export without int8")
    if available < num_train:
        log.warning(
            "The run has only %d training images, fewer than quantization_images=%d: int8 takes its ranges from these; "
            "quantization_images=%d accepts that",
            *(available, num_train, available),
        )
    chosen = replace(config.data, train_size=min(num_train, available))
    measured: dict[SplitName, Images] = {"val": splits["val"]}
    if config.test:
        measured["test"] = splits["test"]
    return RunImages(config, carve_configured(published, chosen)["train"], measured)


@dataclass(frozen=True)
class Measured:
    """A student on the images of a run.

    `numbers` by `SPLIT/student/METRIC`, and after temperature scaling by `SPLIT/student_scaled/METRIC`; `temperature` is the
    one that was fitted on val, None without labels; `logits` by split.
    """

    numbers: dict[str, float]
    temperature: float | None
    logits: dict[SplitName, LogitStore]


@torch.no_grad()
def measure(networks: MeasuredNetworks, images: RunImages, earlier: float | None = None) -> Measured:
    """Measure a student on val and test, and fit its calibration temperature on val, as at the end of a run.

    With an `earlier` temperature, it is measured with that one, too: `SPLIT/student_at_earlier/METRIC`.
    """
    bench, side = images.bench(networks), networks.resolution.student
    num_classes, distiller = networks.student.num_classes, bench.distiller()
    numbers: dict[str, float] = {}
    kept: dict[SplitName, LogitStore] = {}
    temperatures: dict[str, float] | None = None
    for split, of_split in images.measured.items():
        labels = of_split.labels is not None
        names = ("student", "student_scaled") if labels else ("student",)
        final = FinalPass(dict.fromkeys(names, side), num_classes, temperatures, labels=labels)
        before, kept[split] = Assessment(num_classes, labels=labels), LogitStore()
        for batch in bench.batches(of_split, side):
            outputs = forward(distiller, batch)
            final.add(distiller, batch, outputs)
            kept[split].append(outputs.student_logits)
            if earlier is not None:
                before.update(outputs.student_logits / earlier, outputs.label)
        result = final.finish()
        temperatures = result.temperatures
        found = result.numbers
        if earlier is not None:
            found |= {f"student_at_earlier/{name}": value for name, value in before.compute().numbers.items()}
        numbers |= {f"{split}/{name}": value for name, value in found.items() if value == value}
    return Measured(numbers, (temperatures or {}).get("student_scaled"), kept)


def differences(before: Measured, after: Measured) -> dict[str, dict[str, float]]:
    """Return by split how often both name the same class, `agreement`, and the largest difference of a logit."""
    agreement: dict[str, float] = {}
    largest: dict[str, float] = {}
    for split, logits in before.logits.items():
        same, count, far = 0, 0, 0.0
        for one, other in zip(logits, after.logits[split], strict=True):
            same, count = same + int((one.argmax(-1) == other.argmax(-1)).sum()), count + len(one)
            far = max(far, float((one - other).abs().max()))
        agreement[split], largest[split] = same / count, far
    return {"agreement": agreement, "max_difference": largest}


def warn_of_loss(before: Measured, after: Measured) -> None:
    """Log a warning if rounding costs accuracy on val."""
    key = "val/student/accuracy"
    lost = before.numbers.get(key, 0.0) - after.numbers.get(key, 0.0)
    if lost > LOSS:
        log.warning(
            "int8 loses %.3f accuracy on val (%.4f after %.4f): use the fp32 file, raise quantization_images, or choose an "
            "architecture that int8 suits, such as a ResNet",
            *(lost, after.numbers[key], before.numbers[key]),
        )


def rounding(
    before: Measured, after: Measured, files: Mapping[str, Path], latency: Mapping[str, Any], num_images: int
) -> dict[str, Any]:
    """Return the report of an int8 file, as plain data.

    Args:
        before: The student in float32.
        after: The student in int8.
        files: The files `fp32` and `int8`.
        latency: `fp32_ms_1`, `int8_ms_1` and `protocol`.
        num_images: The number of training images from which the ranges were taken.
    """
    return {
        "images": num_images,
        **{
            name: {"bytes": files[name].stat().st_size, "temperature": one.temperature, "metrics": one.numbers}
            for name, one in (("fp32", before), ("int8", after))
        },
        **differences(before, after),
        "latency": {**latency, "verdict": speed(latency["fp32_ms_1"], latency["int8_ms_1"])},
    }


def speed(before: float, after: float) -> str:
    """Return in words how the latency after rounding compares with that before, in any unit."""
    ratio = after / before
    if ratio > 1 + AGREE:
        return f"Int8 is slower than fp32: {ratio:.2f} times its latency"
    if ratio < 1 - AGREE:
        return f"Int8 is faster than fp32: {ratio:.2f} times its latency"
    return f"Int8 is as fast as fp32 within {100 * AGREE:.0f} %: {ratio:.2f} times its latency"
