"""What a run has in common with others in lock-step: its training batches, and its teacher's answers to them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kdx.config.schema import to_plain
from kdx.data.source import Images, SplitName
from kdx.data.splits import fingerprint
from kdx.experiment.answers import card, members, unusable
from kdx.experiment.build import Parts, observers
from kdx.teachers.teacher import Teacher
from kdx.training.answering import Answering, TeacherAnswers
from kdx.training.datamodule import DataModule
from kdx.types import Batch


def about_batches(parts: Parts, splits: Mapping[SplitName, Images]) -> dict[str, Any]:
    """Return as plain data all that the rendered training batches depend on."""
    config, plain = parts.config, to_plain(parts.config)
    names = ("views", "mixing", "augmentation", "resolution", "interpolation")
    return {
        **{name: plain[name] for name in names},
        "seed": _seed(parts),
        "data": [plain["data"], fingerprint({"train": splits["train"]})],
        "flip": parts.flip,
        "teacher": config.teacher is not None and not parts.teacher_is_stored,  # whether it sees images
        "other_resolutions": list(config.other_resolutions),
        "teacher_cache": config.teacher_cache and [config.teacher_cache, plain["teacher"]],  # it may see no images in an epoch
        "accelerator": config.trainer.get("accelerator"),
    }


def about_answers(parts: Parts, teacher: Teacher, datamodule: DataModule) -> dict[str, Any]:
    """Return as plain data all that the teacher's answers to the training batches depend on."""
    config, plain = parts.config, to_plain(parts.config)
    seen = card(parts, members(teacher), datamodule.splits["train"], datamodule.held("train") is None)
    return {
        **seen,
        "views": plain["views"],  # which epochs are shown, too
        "order": [_seed(parts), *(plain["data"][name] for name in ("batch_size", "shuffle_buffer", "on_bad_image"))],
        "calibration": [member.calibration.card for member in teacher.members.values()],
        "teacher_cache": [config.teacher_cache, config.teacher_cache_bits],
        "accelerator": config.trainer.get("accelerator"),
    }


def shared_answers(parts: Parts, teacher: Teacher, datamodule: DataModule, kept: Answering | None) -> TeacherAnswers | None:
    """Return the teacher's answers in training: those that other runs have, too, `kept` ones, or None if there are none."""
    if unusable(parts) is not None:
        return None

    def live(batch: Batch) -> Tensor:
        assert batch.teacher_images is not None
        return teacher.each(batch.teacher_images, batch.other_images)

    return parts.sharing.answers(functools.partial(about_answers, parts, teacher, datamodule), live, kept)


def _seed(parts: Parts) -> int:
    """Return the seed of the order of the training images, from which their views are drawn unless they have their own."""
    return observers(parts, num_classes=2)["train"].order(parts.config.seed, 0)[0]
