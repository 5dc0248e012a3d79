"""Warnings about a config that can run: its resolutions, the length of its training, and its precision."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch

from kdx.config.learning_rate import optimizer_for_batch
from kdx.config.schema import RunConfig
from kdx.data.source import Images
from kdx.experiment.build import Parts
from kdx.experiment.length import Length
from kdx.experiment.networks import on_cpu

SAMPLE = 16  # images whose size is looked at
POINTS = 10_000  # steps at which the schedule is evaluated
TRIALS = 3  # of a convolution
SLOWER = 1.2  # times as long as in float32; more is warned about
BFLOAT16 = ("bf16", "bf16-mixed")
FEW = 100  # steps
LONG = 0.5  # share of the training; a longer warm-up is warned about


def about_pixels(config: RunConfig, train: Images) -> Iterator[str]:
    """Yield warnings about a distilled student that sees more pixels than its teacher, or than there are."""
    side, teacher = config.student_resolution, config.resolution.teacher
    if config.teacher is None and config.peers is None:  # also the training of a teacher, whose pretraining may need more
        return
    if config.teacher is not None and side > teacher:
        larger = f"resolution.student={side} is larger than resolution.teacher={teacher}"
        yield f"{larger}: the teacher sees fewer pixels than its student"
    sides = []
    for i in np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(int)):
        try:
            sides.append(max(train[int(i)].shape[1:]))
        except ValueError:  # an image that cannot be decoded; data.on_bad_image decides what happens in training
            continue
    if sides and side > max(sides):
        yield f"resolution.student={side} is larger than the images ({max(sides)} px): enlarged images have no further detail"


def about_val(config: RunConfig, length: Length) -> Iterator[str]:
    """Yield a warning if the training ends before the first validation."""
    first = (config.trainer.get("check_val_every_n_epoch") or 1) * math.ceil(length.per_epoch)
    if 0 < length.total < first:
        yield (
            f"trainer.max_steps={length.total} ends before the first validation, after {first} steps, so the last weights are "
            f"tested: use trainer.max_steps={first} or more, or trainer.limit_train_batches=N for short epochs"
        )


def about_steps(config: RunConfig, length: Length) -> Iterator[str]:
    """Yield a warning if the training has fewer steps than any network needs, because the epochs are short."""
    if 0 < length.total < FEW and config.trainer.get("max_steps", -1) in (None, -1) and not config.rehearsal:
        epochs = math.ceil(FEW / length.per_epoch)
        yield (
            f"The training has {length.total} steps, {math.ceil(length.per_epoch)} in each epoch, and networks need hundreds: "
            f"use trainer.max_epochs={epochs} or more, or a smaller data.batch_size"
        )


def about_precision(config: RunConfig) -> Iterator[str]:
    """Yield a warning if bfloat16 is slower than float32 on the processor that trains, by a trial of about 50 ms."""
    asked = {f"{path}.precision": member.precision for path, member in config.members.items()}
    lower = [key for key, value in {"trainer.precision": config.trainer.get("precision"), **asked}.items() if value in BFLOAT16]
    if lower and on_cpu(config):
        slower = bfloat16_slowdown()
        if slower > SLOWER:
            yield (
                f"{lower[0]}=bf16-mixed: convolutions in bfloat16 take {slower:.1f} times as long as "
                f"in float32 on this processor, as usual without AMX and avx512_bf16: use {lower[0]}=32-true"
            )


def bfloat16_slowdown() -> float:
    """Return the time of a convolution and its gradients in bfloat16, divided by that in float32; the shortest of 3 each."""
    times: dict[torch.dtype, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where other processes compute, in either precision
    try:
        for dtype in (torch.float32, torch.bfloat16) * (TRIALS + 1):  # the first of each warms up
            images, kernel = torch.ones(16, 32, 16, 16, dtype=dtype), torch.ones(32, 32, 3, 3, dtype=dtype, requires_grad=True)
            began = time.perf_counter()
            torch.nn.functional.conv2d(images, kernel).sum().backward()
            times[dtype] = min(times.get(dtype, math.inf), time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return times[torch.bfloat16] / times[torch.float32]


def about_lr(parts: Parts, length: Length) -> Iterator[str]:
    """Yield a warning if the warm-up takes most of the training, or the learning rate stays far below optimizer.lr."""
    schedule, total = parts.lr_schedule, length.total
    if total < 1:
        return
    warmup = schedule.warmup(length.per_epoch)
    steps = {int(step) for step in np.linspace(0, total - 1, min(total, POINTS))} | {min(warmup, total - 1)}
    reached = max(schedule(step, total, length.per_epoch) for step in steps)
    if warmup > LONG * total:
        key = "warmup_steps" if schedule.warmup_steps else "warmup_epochs"
        lr = optimizer_for_batch(parts.config).get("lr")
        value = f"{key}={getattr(schedule, key):g}"
        yield (
            f"lr_schedule.{value}: the warm-up takes {warmup} steps and the training {total}, so lr reaches {reached:.1%} of "
            f"optimizer.lr{'' if lr is None else f'={lr}'}: use a shorter warm-up, or increase trainer.max_epochs"
        )
