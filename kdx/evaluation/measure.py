"""Metrics of the networks under test, from one pass over a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from kdx.config.schema import DataConfig
from kdx.data.loaders import Loader, ResidentLoader, StreamedLoader, workers
from kdx.data.resident import resident
from kdx.data.sampler import Sampler
from kdx.data.source import Images, check_labels
from kdx.distiller import Distiller
from kdx.evaluation.measured_networks import MeasuredNetworks
from kdx.metrics.assessment import Assessment, AssessmentResult
from kdx.metrics.base import EvaluationMetric
from kdx.metrics.suite import Suite
from kdx.networks.network import Network
from kdx.training.step import forward
from kdx.types import Batch, Outputs, Pair
from kdx.views.crops import Crop
from kdx.views.observer import Observer
from kdx.views.policies import SharedView


class Sink(Protocol):
    """Receives the outputs of each batch."""

    def update(self, outputs: Outputs) -> None:
        """Add a batch of outputs."""


class InDepth:
    """Collects calibration metrics and per-class results of each network: `student/ece_mass`, ..."""

    def __init__(self, bench: Bench, *, labels: bool) -> None:
        names = ("student",) if bench.subject.teacher is None else ("student", "teacher")
        num_classes = len(bench.outputs)
        self.assessments = {name: Assessment(num_classes, bench.metrics, labels=labels).to(bench.device) for name in names}

    def update(self, outputs: Outputs) -> None:
        """Add a batch."""
        for name, assessment in self.assessments.items():
            logits = outputs.student_logits if name == "student" else outputs.teacher_logits
            assert logits is not None
            assessment.update(logits, outputs.label)

    def compute(self) -> dict[str, AssessmentResult]:
        """Return the results by network."""
        return {name: assessment.compute() for name, assessment in self.assessments.items()}


@dataclass(frozen=True)
class Bench:
    """The networks under test, their outputs [K] for the classes of the data, and how images are cropped and loaded.

    `data` has the keys of conf/data/base.yaml.
    """

    subject: MeasuredNetworks
    outputs: Tensor
    crop: Crop
    data: DataConfig
    device: torch.device
    tick: Callable[[], None] = lambda: None  # after each batch
    metrics: Mapping[str, EvaluationMetric] = field(default_factory=dict)  # beside the built-in ones
    skipped: dict[int, str] = field(default_factory=dict)  # images that could not be decoded, and why; filled by `measure`

    @torch.no_grad()
    def measure(self, images: Images, side: int, *, teacher: bool = True, sinks: Sequence[Sink] = ()) -> dict[str, float]:
        """Return `student/accuracy`, `teacher/ece`, `agreement`, ... over all images, for a student at `side` px.

        Only the logits of the data's classes are used, so probabilities are renormalized over them. A student with a
        calibration temperature is also measured with it, as `student_scaled`.
        """
        check_labels(images, len(self.outputs))
        taught = teacher and self.subject.teacher is not None
        labels, temperature = images.labels is not None, self.subject.temperature
        suite = Suite(len(self.outputs), self.metrics, teacher=taught, labels=labels).to(self.device)
        scaled = Assessment(len(self.outputs), self.metrics, labels=labels).to(self.device)
        distiller = self.distiller()
        for batch in self.batches(images, side, teacher=taught):
            outputs = self._outputs(distiller, batch)
            for sink in (suite, *sinks):
                sink.update(outputs)
            if temperature is not None:
                scaled.update(outputs.student_logits / temperature, outputs.label)
            self.tick()
        numbers: dict[str, float] = suite.compute()
        if temperature is not None:
            numbers |= {f"student_scaled/{name}": value for name, value in scaled.compute().numbers.items()}
        return numbers

    def distiller(self) -> Distiller:
        """Return the networks as a distiller. An exported file has logits, classes and channels, but no features to tap."""
        return Distiller(cast(Network, self.subject.student), self.subject.teacher)

    def _outputs(self, distiller: Distiller, batch: Batch) -> Outputs:
        """The networks' logits at the data's classes; the teacher's only if the batch has images for it."""
        outputs = forward(distiller, batch)
        student, teacher = outputs.student_logits[:, self.outputs], outputs.teacher_logits
        teacher = None if teacher is None else teacher[:, self.outputs]
        return replace(outputs, student_logits=student, teacher_logits=teacher, member_logits=None)

    def batches(self, images: Images, side: int, *, teacher: bool = False) -> Iterator[Batch]:
        """Yield all images as the networks see them, for a student at `side` px; with `teacher`, for the teacher too."""
        observer = Observer(
            SharedView(self.crop),
            Pair(self.subject.resolution.teacher, side),
            len(self.outputs),
            teacher=teacher,
            resizing=self.subject.resizing,
            other_resolutions=self.subject.other_resolutions if teacher else (),
        )
        order, bad = Sampler(len(images), self.data.batch_size), self.data.on_bad_image
        held = resident(images, self.data.loader, self.data.resident_budget_mb << 20, bad, self.device)
        decoding = workers(self.data.num_workers, gpus=int(self.device.type == "cuda"))
        loader: Loader = (
            StreamedLoader(images, order, observer.look, on_bad_image=bad, num_workers=decoding)
            if held is None
            else ResidentLoader(images, order, observer.look, on_bad_image=bad, held=held)
        )
        for rendered in loader:
            yield observer.finish(rendered.to(self.device))
        self.skipped.update(loader.skipped)


def device() -> torch.device:
    """Return the GPU, if available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def num_batches(images: Images, batch_size: int) -> int:
    """Return the number of batches of a pass."""
    return int(np.ceil(len(images) / batch_size))
