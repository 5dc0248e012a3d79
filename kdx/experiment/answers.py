"""Which answers of a teacher a run can use: the key of its views, and the comparison with the teacher itself."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from kdx.config.errors import ConfigError
from kdx.config.identity import code_of, digest
from kdx.config.schema import AUTO, to_plain
from kdx.data.source import Images
from kdx.data.splits import fingerprint
from kdx.experiment.build import Parts
from kdx.run.provenance import VERSION
from kdx.teachers.answers import Answers
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.training.answering import Answering
from kdx.training.datamodule import DataModule

log = logging.getLogger("kdx")


def unusable(parts: Parts) -> str | None:
    """Return why this run cannot use kept answers; None if it can."""
    if parts.teacher_is_stored:
        return "the teacher's view never changes, so that it runs once in any case"
    if parts.objective.teacher_features:
        return f"{', '.join(parts.objective.teacher_features)} are features of the teacher, which are not kept"
    return None


def key(parts: Parts, teacher: Teacher, train: Images, streamed: bool) -> str:
    """Return the key of the answers: equal for runs in which the teacher sees the same pixels in the same epochs.

    The teacher counts by its weights, the data by its pixels and labels, views by all settings and the seed. The calibration
    of the teacher, and all that concerns the student alone, do not count.
    """
    config, plain = parts.config, to_plain(parts.config)
    views = {name: plain[name] for name in ("views", "mixing", "augmentation")}
    data = plain["data"]
    pixels = {
        "teacher": [
            [member.fingerprint, member.network.card, member.resolution]
            for member in teacher.members.values()
            if isinstance(member, OnlineTeacher)
        ],
        "data": fingerprint({"train": train}),
        "seed": config.seed,
        **views,
        "flip": parts.flip,
        "resolution": [config.resolution.teacher, *config.other_resolutions],
        "interpolation": config.interpolation.in_training[0],
        "student": [plain["resolution"], plain["interpolation"]] if config.data.teacher_view == "student" else None,
        "order": [data["batch_size"], data["shuffle_buffer"], data["on_bad_image"]] if parts.mixing is not None else None,
        "arithmetic": [config.trainer.get("precision"), config.speed, streamed],  # workers send images in 8 bits
    }
    return digest({**pixels, "code": code_of(views), "kdx": VERSION})


def open_answers(parts: Parts, teacher: Teacher, datamodule: DataModule, device: torch.device) -> Answering | None:
    """Return the kept answers for this run, compared with the teacher; None if it does not use any, with the reason in the log.

    ConfigError if they are not those of the teacher.
    """
    config = parts.config
    if config.teacher_cache is None:
        return None
    reason = unusable(parts)
    if reason is not None:
        log.info("teacher_cache is not used: %s", reason)
        return None
    root = Path(config.outputs) / "answers" if config.teacher_cache == AUTO else Path(config.teacher_cache)
    images, observer = datamodule.splits["train"], datamodule.observers["train"]
    resident = datamodule.held("train") is not None
    folder = root / key(parts, teacher, images, streamed=not resident)
    answers = Answers(folder, config.teacher_cache_bits)
    answering = Answering(answers, teacher, len(images), len(images) // config.data.batch_size, device)
    epochs = range(max(config.trainer.get("max_epochs") or 0, 0))
    known = answering.kept(epochs)
    if known:
        batches = datamodule.loader("train", observer, lambda: (known[0], 0), train=True)
        apart = answering.differs(known[0], observer.finish(next(iter(batches)).to(device)))
        if apart > 1:
            raise ConfigError(
                f"teacher_cache: the answers in {folder} are not those of this teacher ({apart:.0f} times what rounding "
                "explains): delete the folder, or use teacher_cache=null"
            )
    log.info("The teacher's answers to %d of %d epochs are kept in %s", len(known), len(epochs), folder)
    if resident:  # in this process; workers would not see that a file is damaged
        observer.answered = answering.knows
    return answering
