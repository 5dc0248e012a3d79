"""Cost of a run: size and speed of its networks on the run's device, energy, and the teacher's share of the time."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from kdx.config.schema import to_plain
from kdx.costs.measure import Costs, Measured, Part, measure
from kdx.distiller import Cohort
from kdx.experiment.assemble import Experiment
from kdx.experiment.build import Parts
from kdx.teachers.teacher import OnlineTeacher

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

log = logging.getLogger("kdx")

FORWARD = ("resolution", "trainer", "callbacks", "speed", "compile")  # on which the speed of any network depends


def measure_cost(parts: Parts, experiment: Experiment, trainer: Trainer, images_per_second: float | None) -> Costs:
    """Return the cost of the networks on this rank's device, with the measurement protocol.

    `images_per_second` is the training speed, summed over all ranks; None if nothing was trained. If a measurement fails, such
    as a batch of one image in a network that needs two, a warning is logged and the run continues.
    """
    config, distiller, channels = parts.config, experiment.module.distiller, parts.source.channels
    side = config.student_resolution
    networks: dict[str, list[Part]] = {"student": [(distiller.student, (channels, side, side))]}
    if isinstance(distiller, Cohort):
        networks |= {f"peer_{name}": [(peer, (channels, side, side))] for name, peer in distiller.peers.items()}
    if experiment.teacher is not None:
        sides = [member.resolution or config.resolution.teacher for member in config.members.values()]
        networks["teacher"] = []
        for member, px in zip(experiment.teacher.members.values(), sides, strict=True):
            assert isinstance(member, OnlineTeacher)
            networks["teacher"].append((member.network, (channels, px, px)))
    try:
        return measure(
            networks,
            batch_size=max(1, config.data.batch_size // trainer.world_size),
            device=trainer.strategy.root_device,
            precision=trainer.precision_plugin.forward_context,
            precision_name=str(config.trainer["precision"]),
            images_per_second=None if images_per_second is None else images_per_second / trainer.world_size,
            teacher_runs=_teacher_runs(parts, experiment),
            once=functools.partial(measured_once, parts),
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        log.warning("Cost not measured: %s", reason)
        return Costs({}, f"not measured: {reason}", "")


def measured_once(parts: Parts, role: str, make: Callable[[], Measured]) -> Measured:
    """Return the costs that `make` measures, or has measured for a run with the same networks on the same device."""
    plain = to_plain(parts.config)
    own = role if role in ("student", "teacher") else "peers"
    about = {name: plain[name] for name in (own, *FORWARD)}
    about |= {"channels": parts.source.channels, "classes": parts.num_classes, "batch_size": plain["data"]["batch_size"]}
    return parts.sharing.once(f"costs of {role}", lambda: about, make)


def _teacher_runs(parts: Parts, experiment: Experiment) -> float:
    """Return the share of the training batches for which this run has run its teacher."""
    if experiment.teacher is None or parts.teacher_is_stored:
        return 0.0
    answers = experiment.module.answering
    return answers.asked / answers.given if answers is not None and answers.given else 1.0
