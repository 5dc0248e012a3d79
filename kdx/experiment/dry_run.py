"""Dry run: every network, loss and temperature once, without data or weights, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from kdx.data.source import Images, SplitName
from kdx.experiment import cautions, resume
from kdx.experiment.build import Parts
from kdx.experiment.probe import Probe, probe
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
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not change
        students = _students(parts)
        teachers = _teachers(parts)
        learner = try_losses(parts, students["student"], teachers, train)
    if config.checkpoint is not None:
        for name, tried in students.items():
            prefix = "distiller.student." if name == "student" else f"distiller.peers.{name}."
            learner |= {prefix + key: value for key, value in tried.network.state_dict().items()}
    length = cautions.training_length(config, len(train))
    done = resume.check_fit(config, learner, length.total) if config.checkpoint is not None else []
    if rank() == 0:
        of_networks = [warning for tried in (*students.values(), *teachers.values()) for warning in tried.warnings]
        of_settings = [
            *cautions.about_pixels(config, train),
            *cautions.about_val(config, length),
            *cautions.about_lr(parts, length),
        ]
        for warning in (*of_networks, *of_settings, *done):
            log.warning("%s%s", "teacher: " if config.name == TEACHER else "", warning)


def _students(parts: Parts) -> dict[str, Probe]:
    """Return the student, at its largest resolution, and its peers after a run at each of the student's resolutions."""
    config, paths = parts.config, parts.objective.student_features
    nodes = {"student": ("student", config.student)}
    for name, node in config.peers.members.items() if config.peers is not None else ():
        nodes[name] = (f"peers.members.{name}", node)
    probes: dict[str, Probe] = {}
    for name, (path, node) in nodes.items():
        warnings: list[str] = []
        for side in sorted(config.student_resolutions):
            probes[name] = probe(parts, node, path, "resolution.student", side, paths if name == "student" else (), True)
            warnings += probes[name].warnings
        probes[name].warnings = warnings
    return probes


def _teachers(parts: Parts) -> dict[str, Probe]:
    """Return the members of the teacher by config path, each after a run at its resolution."""
    config, probes = parts.config, {}
    for path, member in config.members.items():
        key = "resolution.teacher" if member.resolution is None else f"{path}.resolution"
        side = member.resolution or config.resolution.teacher
        paths = () if config.is_ensemble else parts.objective.teacher_features
        probes[path] = probe(parts, member.architecture, f"{path}.network", key, side, paths, False)
    return probes
