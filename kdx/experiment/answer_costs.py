"""What keeping a teacher's answers costs and saves: bytes, and the time of the teacher from a short measurement."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from kdx.config.errors import ConfigError
from kdx.costs.latency import median
from kdx.experiment.answers import distinct_epochs, root, unusable
from kdx.experiment.build import Parts
from kdx.experiment.data import carve_splits, read_splits
from kdx.experiment.length import training_length
from kdx.experiment.networks import arithmetic, make_network, on_cpu
from kdx.teachers.answers import Answers
from kdx.teachers.teacher import OnlineTeacher

SAMPLE = 4 * 2**20  # logits that are written and read


@dataclass(frozen=True)
class AnswerCosts:
    """What a run would keep, the number of its epochs and of those that differ, and the seconds of an epoch.

    `teacher` are those of the teacher, `keep` and `read` those of its answers.
    """

    images: int
    members: int
    num_classes: int
    bits: int
    epochs: int
    distinct: int
    teacher: float
    keep: float
    read: float

    @property
    def bytes_per_epoch(self) -> int:
        """Bytes of the logits of all images."""
        return self.images * self.members * self.num_classes * self.bits // 8

    @property
    def pays_from(self) -> int | None:
        """The number of runs from which on they take less time with kept answers; None if never."""
        saved = self.teacher - self.read  # of an epoch whose answers are kept
        return None if saved <= 0 else math.floor(self.distinct * (saved + self.keep) / (self.epochs * saved)) + 1


def estimate(parts: Parts) -> AnswerCosts:
    """Return the costs for a run. The teacher has random weights, because its time does not depend on them.

    ConfigError if the run has no teacher, or cannot use kept answers.
    """
    config = parts.config
    if config.teacher is None:
        raise ConfigError("The run has no teacher, whose answers could be kept: select one, e.g. teacher=online")
    if (reason := unusable(parts)) is not None:
        raise ConfigError(f"teacher_cache is not used: {reason}")
    train = carve_splits(config.data, read_splits(config.data, parts.source))["train"]
    length = training_length(config, len(train))
    members, num_classes = len(config.members), parts.num_classes
    count = min(len(train), max(SAMPLE // (members * num_classes), 1))
    folder = root(config)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".estimate-", dir=folder) as place:
        answers = Answers(Path(place), config.teacher_cache_bits)
        logits = torch.randn(count, members, num_classes)
        keep = median(lambda: answers.write(0, count, torch.arange(count), logits)).seconds * len(train) / count
        read = median(lambda: answers.open(0)).seconds * len(train) / count
    return AnswerCosts(
        *(len(train), members, num_classes, config.teacher_cache_bits),
        epochs=length.epochs,
        distinct=distinct_epochs(config, len(train)),
        teacher=sum(_per_image(parts, path) for path in config.members) * len(train),
        keep=keep,
        read=read,
    )


def _per_image(parts: Parts, path: str) -> float:
    """Return the seconds per image of a member of the teacher, in the batches of the run."""
    config, member = parts.config, parts.config.members[path]
    gpu = None if on_cpu(config) else torch.accelerator.current_accelerator()
    device = gpu or torch.device("cpu")
    node = {**member.architecture, "pretrained": False, "init": None}
    network = make_network(node, f"{path}.network", parts.source, parts.num_classes)
    teacher = OnlineTeacher(network, **arithmetic(config, member))
    teacher.to(device)
    side, size = member.resolution or config.resolution.teacher, config.data.batch_size
    images = torch.rand(size, parts.source.channels, side, side, device=device)
    kind = torch.bfloat16 if "bf16" in str(config.trainer.get("precision")) else torch.float16
    with torch.autocast(device.type, kind, enabled="mixed" in str(config.trainer.get("precision"))):
        return median(lambda: teacher(images).sum().item()).seconds / size
