"""What a run stores of its networks: the students' weights, the teacher's card, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdx.distiller import Cohort
from kdx.experiment.assemble import Experiment
from kdx.networks import weights
from kdx.networks.network import Network
from kdx.run.folder import RunFolder
from kdx.teachers.teacher import Teacher
from kdx.training.module import DistillationModule


def save_students(
    module: DistillationModule, resolution: int, folder: RunFolder, class_names: Sequence[str] | None = None
) -> None:
    """Write the selected student, tested at `resolution` px, and its peers into a folder of their own."""
    distiller = module.distiller
    facts: dict[str, Any] = {"resolution": resolution}
    facts |= {} if class_names is None else {"label_names": list(class_names)}
    weights.save(distiller.student.model, {**distiller.student.card, **facts}, folder.student)
    if isinstance(distiller, Cohort):
        folder.peers.mkdir(exist_ok=True)
        for name, peer in distiller.peers.items():
            assert isinstance(peer, Network)
            weights.save(peer.model, {**peer.card, **facts}, folder.peers / f"{name}.safetensors")


def teacher_card(teacher: Teacher, files: Mapping[str, Path | None]) -> dict[str, Any]:
    """Which weights taught, and how each member was calibrated, as plain data."""

    def card(name: str, member: Teacher) -> dict[str, Any]:
        file = files[name]
        return {
            "weights": str(file.resolve()) if file else None,
            "sha256": member.fingerprint,
            "calibration_temperature": member.calibration_temperature,
        }

    return {"members": {name: card(name, member) for name, member in teacher.members.items()}}


def count_parameters(experiment: Experiment) -> dict[str, float]:
    """The number of parameters of each network: `student/parameters`, `teacher/parameters`, ..."""
    distiller = experiment.module.distiller
    counts = {"student/parameters": float(distiller.student.num_parameters)}
    if isinstance(distiller, Cohort):
        for name, peer in distiller.peers.items():
            counts[f"peer_{name}/parameters"] = float(sum(p.numel() for p in peer.parameters()))
    if experiment.teacher is not None:
        counts["teacher/parameters"] = float(experiment.teacher.num_parameters)
    return counts
