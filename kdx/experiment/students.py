"""The stored networks of a run: the students' weights, the teacher's card, and parameter counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.distiller import Cohort
from kdx.experiment.assemble import Experiment
from kdx.experiment.teacher import MemberWeights
from kdx.experiment.teacher_classes import Outputs
from kdx.networks import weights
from kdx.networks.network import Network
from kdx.networks.preprocessing import preprocessing
from kdx.run.folder import RunFolder
from kdx.teachers.calibration_maps import CalibrationMap, of_card
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.training.module import DistillationModule


def student_card(network: Network, config: RunConfig, class_names: Sequence[str] | None) -> dict[str, Any]:
    """Return all that is needed to use a trained student: network, preprocessing on val and test, and class names.

    The names are timm's: `pretrained_cfg` has input_size, interpolation, crop_pct, crop_mode, mean and std; `label_names` are
    the names of the outputs in their order, if the data have names. `interpolation` is kdx's own name of the filter, because
    timm's does not say whether images are resized without antialiasing.
    """
    card, side = network.card, config.student_resolution
    interpolation = config.interpolation.in_evaluation[1]
    words = preprocessing(config.data.eval_crop, interpolation, network.in_channels, side)
    names = {} if class_names is None else {"label_names": list(class_names)}
    return {
        **card,
        "pretrained_cfg": {**card["pretrained_cfg"], **words},
        "resolution": side,
        "interpolation": interpolation,
        **names,
    }


def save_students(
    module: DistillationModule,
    config: RunConfig,
    folder: RunFolder,
    class_names: Sequence[str] | None = None,
    calibration_temperature: float | None = None,
) -> None:
    """Write the selected student, with the temperature that was fitted to it on val, and its peers."""
    distiller = module.distiller
    card = student_card(distiller.student, config, class_names)
    weights.save(distiller.student.model, {**card, "calibration_temperature": calibration_temperature}, folder.student)
    if isinstance(distiller, Cohort):
        folder.peers.mkdir(exist_ok=True)
        for name, peer in distiller.peers.items():
            assert isinstance(peer, Network)
            weights.save(peer.model, student_card(peer, config, class_names), folder.peers / f"{name}.safetensors")


def teacher_card(teacher: Teacher, files: Mapping[str, MemberWeights]) -> dict[str, Any]:
    """Return file, outputs, mean, std, SHA-256 and calibration of each member of the teacher, as plain data."""

    def card(name: str, member: Teacher) -> dict[str, Any]:
        assert isinstance(member, OnlineTeacher)
        file, outputs = files[name].file, files[name].outputs
        mean, std = member.network.colors
        return {
            "weights": str(file.resolve()) if file else None,
            "num_outputs": outputs.count,
            "outputs": None if outputs.chosen is None else list(outputs.chosen),
            "mean": list(mean),
            "std": list(std),
            "sha256": member.fingerprint,
            "calibration_temperature": member.calibration_temperature,
            "calibration": member.calibration.card,
        }

    return {"members": {name: card(name, member) for name, member in teacher.members.items()}}


def weights_of_card(card: Mapping[str, Any], num_classes: int) -> MemberWeights:
    """Return the weights that a member's card in teacher.json names; `num_classes` are those of the data, for older cards."""
    outputs = Outputs(card.get("num_outputs", num_classes), card.get("outputs"))
    colors = {name: card[name] for name in ("mean", "std") if name in card}
    return MemberWeights(Path(card["weights"]) if card["weights"] else None, outputs, colors)


def calibration_of_card(card: Mapping[str, Any]) -> CalibrationMap:
    """Return the calibration that a member's card in teacher.json states. ConfigError if it is not one of kdx."""
    try:
        return of_card(card)
    except ValueError as error:
        raise ConfigError(str(error)) from None


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
