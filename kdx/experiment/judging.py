"""What the preflight finds wrong in a run's networks: an error, or a caveat of the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.experiment.teacher import NAME as TEACHER
from kdx.networks.network import Network
from kdx.networks.published import beside, published
from kdx.teachers.judgement import Fault
from kdx.teachers.teacher import Normalization

log = logging.getLogger("kdx")


def class_faults(doubts: Sequence[str | None]) -> list[Fault]:
    """Return the faults of teachers whose classes are matched by their order although their names differ."""
    return [Fault("teacher_classes", doubt, certain=False) for doubt in doubts if doubt is not None]


def other_normalization(file: str | None, network: Network) -> Normalization | None:
    """Return mean and std in the metadata of a file's weights, else of timm's for the architecture, if others are used."""
    if file is None:
        return None
    known = beside(Path(file)) or published(network.architecture)
    if known is None or network.in_channels != len(known.mean):
        return None
    theirs = torch.tensor([known.mean, known.std])
    same = torch.allclose(theirs, torch.stack([network.mean.flatten(), network.std.flatten()]), atol=1e-3)
    return None if same else (known.mean, known.std)


def student_faults(config: RunConfig, student: Network) -> list[Fault]:
    """Return the fault of a student that starts from a file with another normalization than its weights expect."""
    other = other_normalization(config.student.get("init"), student)
    if other is None:
        return []
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in other)
    who, key = ("teacher", "teacher.network") if config.name == TEACHER else ("student", "student")  # in its own run
    text = f"The {who} starts from {config.student['init']} with another normalization than those weights expect: "
    return [Fault("student_normalization", f"{text}set {key}.mean=[{mean}] {key}.std=[{std}]", certain=False)]


def judges(config: RunConfig) -> bool:
    """Return whether teachers are judged."""
    return config.preflight != "off" and not config.rehearsal


def report_faults(faults: Sequence[Fault], config: RunConfig, caveats: dict[str, str]) -> None:
    """Raise ConfigError for a teacher that must be wrong, unless `preflight` says otherwise; warn of all else, as a caveat."""
    certain = [fault for fault in faults if fault.certain]
    if certain and config.preflight == "strict":
        raise ConfigError(f"{certain[0].text}; or train with it all the same, with preflight=warn")
    for fault in faults:
        caveats[fault.kind] = fault.text
        log.warning("%s", fault.text)
