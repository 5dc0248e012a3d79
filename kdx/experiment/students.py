"""The stored networks of a run: the students' weights, the teacher's card, and parameter counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdx.distiller import Cohort
from kdx.experiment.assemble import Experiment
from kdx.experiment.teacher import MemberWeights
from kdx.experiment.teacher_classes import Outputs
from kdx.networks import weights
from kdx.networks.network import Network
from kdx.run.folder import RunFolder
from kdx.teachers.teacher import Teacher
from kdx.training.module import DistillationModule


def save_students(
    module: DistillationModule, resolution: int, folder: RunFolder, class_names: Sequence[str] | None = None
) -> None:
    """Write the selected student, whose test resolution is `resolution` px, and its peers."""
    distiller = module.distiller
    metadata: dict[str, Any] = {"resolution": resolution}
    metadata |= {} if class_names is None else {"label_names": list(class_names)}
    weights.save(distiller.student.model, {**distiller.student.card, **metadata}, folder.student)
    if isinstance(distiller, Cohort):
        folder.peers.mkdir(exist_ok=True)
        for name, peer in distiller.peers.items():
            assert isinstance(peer, Network)
            weights.save(peer.model, {**peer.card, **metadata}, folder.peers / f"{name}.safetensors")


def teacher_card(teacher: Teacher, files: Mapping[str, MemberWeights]) -> dict[str, Any]:
    """Return file, outputs, SHA-256 and calibration temperature of each member of the teacher, as plain data."""

    def card(name: str, member: Teacher) -> dict[str, Any]:
        file, outputs = files[name].file, files[name].outputs
        return {
            "weights": str(file.resolve()) if file else None,
            "num_outputs": outputs.count,
            "outputs": None if outputs.chosen is None else list(outputs.chosen),
            "sha256": member.fingerprint,
            "calibration_temperature": member.calibration_temperature,
        }

    return {"members": {name: card(name, member) for name, member in teacher.members.items()}}


def weights_of_card(card: Mapping[str, Any], num_classes: int) -> MemberWeights:
    """Return the weights that a member's card in teacher.json names; `num_classes` are those of the data, for older cards."""
    outputs = Outputs(card.get("num_outputs", num_classes), card.get("outputs"))
    return MemberWeights(Path(card["weights"]) if card["weights"] else None, outputs)


def count_parameters(experiment: Experiment) -> dict[str, float]:
    """Return the number of parameters of each network: `student/parameters`, `teacher/parameters`, ..."""
    distiller = experiment.module.distiller
    counts = {"student/parameters": float(distiller.student.num_parameters)}
    if isinstance(distiller, Cohort):
        for name, peer in distiller.peers.items():
            counts[f"peer_{name}/parameters"] = float(sum(p.numel() for p in peer.parameters()))
    if experiment.teacher is not None:
        counts["teacher/parameters"] = float(experiment.teacher.num_parameters)
    return counts
