"""Dry run: every network, loss and temperature once, without data or weights, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from kdx.data.source import Images, SplitName
from kdx.experiment import cautions, resume
from kdx.experiment.build import Parts
from kdx.experiment.length import training_length
from kdx.experiment.teacher import NAME as TEACHER
from kdx.experiment.trainer import check_trainer
from kdx.experiment.try_losses import try_losses
from kdx.training.ranks import rank

log = logging.getLogger("kdx")


def dry_run(parts: Parts, splits: Mapping[SplitName, Images]) -> None:
    """Run networks, losses and temperature once, and log warnings about the config.

    Networks run on the meta device, which computes shapes and no values, so large ones take less than a second; losses and the
    temperature run on random logits and features.

    Raises:
        ConfigError: If a network does not take images of its resolution, a path of features does not exist, a loss or the
            temperature returns something else than expected, or `ckpt_path` does not fit.
    """
    config, train = parts.config, splits["train"]
    check_trainer(config)
    students, teachers = parts.probes
    del parts.probes  # a network that reads values had to be built with them, and may be large
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not change
        learner = try_losses(parts, students["student"], teachers, train)
    if config.checkpoint is not None:
        for name, tried in students.items():
            prefix = "distiller.student." if name == "student" else f"distiller.peers.{name}."
            learner |= {prefix + key: value for key, value in tried.network.state_dict().items()}
    length = training_length(config, len(train))
    done = resume.check_fit(config, learner, length.total) if config.checkpoint is not None else []
    if rank() == 0:
        of_networks = [warning for tried in (*students.values(), *teachers.values()) for warning in tried.warnings]
        of_settings = [
            *cautions.about_pixels(config, train),
            *cautions.about_val(config, length),
            *cautions.about_steps(config, length),
            *cautions.about_lr(parts, length),
            *cautions.about_precision(config),
        ]
        for warning in (*of_networks, *of_settings, *done):
            log.warning("%s%s", "teacher: " if config.name == TEACHER else "", warning)
