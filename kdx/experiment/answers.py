"""Which answers of a teacher a run can use: the key of its views, and the comparison with the teacher itself."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import torch

from kdx.config.errors import ConfigError
from kdx.config.identity import code_of, digest
from kdx.config.schema import AUTO, RunConfig, to_plain
from kdx.data.source import Images, SplitName
from kdx.data.splits import fingerprint
from kdx.experiment.build import Parts, observers
from kdx.experiment.length import training_length
from kdx.run.provenance import VERSION
from kdx.teachers.answers import Answers
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.training.answering import Answering
from kdx.training.datamodule import DataModule
from kdx.training.examination import Examination, Shown, SplitAnswers
from kdx.views.policies import WHICH_EPOCHS

log = logging.getLogger("kdx")


def unusable(parts: Parts) -> str | None:
    """Return why this run cannot use kept answers; None if it can."""
    if parts.teacher_is_stored:
        return "the teacher's view never changes, so that it runs once in any case"
    if parts.objective.teacher_features:
        return f"{', '.join(parts.objective.teacher_features)} are features of the teacher, which are not kept"
    return None


def root(config: RunConfig) -> Path:
    """Return the folder of all kept answers."""
    return Path(config.outputs) / "answers" if config.teacher_cache in (None, AUTO) else Path(str(config.teacher_cache))


def members(teacher: Teacher) -> list[Any]:
    """Return what a teacher's answers to given pixels depend on, as plain data."""
    return [
        [member.fingerprint, member.network.card, member.resolution, str(member.dtype)]
        for member in teacher.members.values()
        if isinstance(member, OnlineTeacher)
    ]


def card(parts: Parts, teacher: list[Any], train: Images, streamed: bool) -> dict[str, Any]:
    """Return what is equal for runs in which the teacher, as `members` gives it, sees the same pixels in the same epochs.

    The teacher counts by its weights, the data by its pixels and labels, views by all settings and their seed. The calibration
    of the teacher, the number of distinct epochs, and all that concerns the student alone, do not count.
    """
    config, plain = parts.config, to_plain(parts.config)
    views = {name: plain[name] for name in ("views", "mixing", "augmentation")}
    views["views"] = {name: value for name, value in views["views"].items() if name not in WHICH_EPOCHS}
    data = plain["data"]
    observer = observers(parts, num_classes=2)["train"]
    return {
        "teacher": teacher,
        "data": fingerprint({"train": train}),
        "seed": observer.policy.drawn_from(config.seed, 0)[0],
        **views,
        "flip": parts.flip,
        "resolution": [config.resolution.teacher, *config.other_resolutions],
        "interpolation": config.interpolation.in_training[0],
        "student": [plain["resolution"], plain["interpolation"]] if config.data.teacher_view == "student" else None,
        "order": [data["batch_size"], data["shuffle_buffer"], data["on_bad_image"]] if observer.depends_on_batch else None,
        "arithmetic": [config.trainer.get("precision"), config.speed, config.compile, streamed],  # workers send 8 bits
        "code": code_of(views),
        "kdx": VERSION,
    }


def examined_card(
    parts: Parts, teacher: list[Any], shown: Any, images: Images, streamed: bool, device: torch.device, batch: list[int]
) -> dict[str, Any]:
    """Return what is equal for runs in which the teacher's logits on a whole split are equal to the last bit.

    `shown` says which images the teacher sees, and `batch` in how large batches, on how many ranks.
    """
    config, plain = parts.config, to_plain(parts.config)
    autocast = str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else None
    arithmetic = [config.trainer.get("precision"), config.speed, config.compile, bool(parts.objective.teacher_features)]
    return {
        "teacher": teacher,
        "shown": shown,
        "data": fingerprint({"split": images}),
        "crop": plain["data"]["eval_crop"],
        "resolution": [config.resolution.teacher, *config.other_resolutions, config.student_resolution],
        "interpolation": config.interpolation.in_evaluation,
        "arithmetic": [*arithmetic, streamed, autocast, device.type, *batch, config.data.on_bad_image],
        "code": code_of({"crop": plain["data"]["eval_crop"]}),
        "kdx": VERSION,
    }


def examination(parts: Parts, teacher: Teacher, datamodule: DataModule, user: Path) -> Examination:
    """Return the examination of the teacher on val and test, which keeps its logits. `user` is the folder of this run."""
    told = functools.cache(lambda: members(teacher))

    def opened(split: SplitName, shown: Shown, device: torch.device) -> SplitAnswers:
        images, streamed = datamodule.splits[split], datamodule.held(split) is None
        member = teacher.members.get(shown)
        others = [[other.mean, other.std] for other in member.alternatives] if isinstance(member, OnlineTeacher) else []
        about, batch = [shown, others], [datamodule.eval_batch_size, datamodule.world]
        made_of = examined_card(parts, told(), about, images, streamed, device, batch)
        answers = Answers(root(parts.config) / digest(made_of), 32, made_of, user)
        return SplitAnswers(answers, len(images), device)

    return Examination(teacher, opened)


def open_answers(parts: Parts, teacher: Teacher, datamodule: DataModule, device: torch.device, user: Path) -> Answering | None:
    """Return the kept answers for the run in the folder `user`, compared with the teacher.

    None if the run does not use any, with the reason in the log. ConfigError if they are not those of the teacher.
    """
    config = parts.config
    if config.teacher_cache is None:
        return None
    reason = unusable(parts)
    if reason is not None:
        log.info("teacher_cache is not used: %s", reason)
        return None
    images, observer = datamodule.splits["train"], datamodule.observers["train"]
    resident = datamodule.held("train") is not None
    made_of = card(parts, members(teacher), images, streamed=not resident)
    folder = root(config) / digest(made_of)
    answers = Answers(folder, config.teacher_cache_bits, made_of, user)
    choose = None if observer.depends_on_batch else datamodule.chooser("train", observer)
    answering = Answering(answers, teacher, len(images), len(images) // config.data.batch_size, device, choose)
    epochs = range(distinct_epochs(config, len(images)))
    known = answering.kept(epochs)
    if known:
        batches = datamodule.loader("train", observer, lambda: (known[0], 0), train=True)
        apart = answering.differs(observer.finish(next(iter(batches)).to(device)))
        if apart > 1:
            raise ConfigError(
                f"teacher_cache: the answers in {folder} are not those of this teacher ({apart:.0f} times what rounding "
                "explains): delete the folder, or use teacher_cache=null"
            )
    log.info("The teacher's answers to %d of %d epochs are kept in %s", len(known), len(epochs), folder)
    if resident:  # in this process; workers would not see that a file is damaged
        observer.answered = answering.knows
    return answering


def distinct_epochs(config: RunConfig, train_size: int) -> int:
    """Return the number of epochs of a run whose views differ, at least 1."""
    epochs = training_length(config, train_size).epochs
    return min(epochs, config.views.get("distinct_epochs") or epochs)
