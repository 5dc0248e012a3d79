"""One training step: batch -> logits of student and teacher -> temperature -> loss and its parts -> numbers to log.

Without Lightning: the training module, the evaluation, a benchmark or a notebook call the same functions. In plain PyTorch:

    result = step(distiller, objective, batch, Progress(0.0, 0))
    optimizer.zero_grad()
    result.loss.backward()
    optimizer.step()
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdx.distiller import Cohort, Distiller
from kdx.losses.objective import Objective
from kdx.ranges import ShapeError
from kdx.temperatures.base import Temperature
from kdx.types import Batch, Outputs, Progress, TemperaturePair, TemperatureValue

TRAINED = Progress(1.0, 0)  # where nothing is trained


class StepResult(NamedTuple):
    """The `loss` [] to minimize, what it was computed from, and the `numbers` to log by their mean."""

    loss: Tensor
    outputs: Outputs
    numbers: dict[str, Tensor]
    weighted: dict[str, Tensor]  # the student's mean losses [] by name, each times its weight


def step(
    distiller: Distiller | Cohort,
    objective: Objective,
    batch: Batch,
    progress: Progress,
    teacher_logits: Tensor | None = None,
) -> StepResult:
    """Compute the loss of one batch; `loss.backward()` and the optimizer are the caller's. No value is read on the host.

    Args:
        distiller: student and teacher, or a cohort of students that teach each other; and the temperature.
        objective: the weighted sum of named losses.
        batch: images [B,C,R,R] in [0,1] for each network, and labels.
        progress: how far training is, for schedules of temperatures and weights.
        teacher_logits: the teacher's logits [B,K], if they are known; then the teacher is not run.

    Raises:
        ShapeError: a network, the temperature or a loss returned the wrong shape.
    """
    outputs = forward(distiller, batch, progress, teacher_logits)
    student = objective(outputs)
    peers = {name: objective(peer).loss for name, peer in outputs.peers.items()}
    loss = sum(peers.values(), student.loss)  # no gradient flows into the targets that peers give
    numbers = {"loss": student.loss}
    numbers |= {f"loss_{name}": part for name, part in student.parts.items()}
    numbers |= {f"loss_peer_{name}": value for name, value in peers.items()}
    numbers |= temperature_numbers(outputs.temperature)
    if outputs.disagreement is not None:
        numbers["disagreement"] = outputs.disagreement
    return StepResult(loss, outputs, numbers, student.weighted)


def forward(
    distiller: Distiller | Cohort, batch: Batch, progress: Progress = TRAINED, teacher_logits: Tensor | None = None
) -> Outputs:
    """Run the networks on their images, then the temperature on their logits; once a step for all losses."""
    outputs = distiller(batch, teacher_logits)
    for network in (outputs, *outputs.peers.values()):
        network.progress = progress
        if distiller.temperature is not None and network.teacher_logits is not None:
            value = distiller.temperature(network.student_logits, network.teacher_logits, progress)
            network.temperature = checked_temperature(value, distiller.temperature, len(batch))
    return outputs


def temperature_numbers(temperature: TemperatureValue | None) -> dict[str, Tensor]:
    """Return the numbers to log of a temperature, or of one for each network."""
    if temperature is None:
        return {}
    if isinstance(temperature, TemperaturePair):
        return spread("temperature_teacher", temperature.teacher) | spread("temperature_student", temperature.student)
    return spread("temperature", temperature)


def spread(name: str, values: Tensor) -> dict[str, Tensor]:
    """Return `values`, whose mean is logged; for a temperature per example also minimum, maximum and standard deviation."""
    if values.numel() == 1:
        return {name: values}
    return {name: values, f"{name}_min": values.min(), f"{name}_max": values.max(), f"{name}_std": values.std()}


def checked_temperature(value: TemperatureValue, temperature: Temperature, batch_size: int) -> TemperatureValue:
    """Return `value` if it is [] or [B,1], or a pair of such tensors; else raise ShapeError.

    A temperature [B] would be broadcast over the classes where B = K, and nobody would notice.
    """
    pair = isinstance(value, TemperaturePair)
    values = value._asdict() if isinstance(value, TemperaturePair) else {"temperature": value}
    for name, tensor in values.items():
        if isinstance(tensor, Tensor) and tensor.shape in (torch.Size(()), torch.Size((batch_size, 1))):
            continue
        what = f"shape {list(tensor.shape)}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise ShapeError(
            f"temperature: {type(temperature).__name__} returned {what}{f' as {name}' if pair else ''}; "
            f"expected [] or [{batch_size}, 1] (one value per example): {_remedy(tensor, batch_size)}"
        )
    return value


def _remedy(value: object, batch_size: int) -> str:
    if not isinstance(value, Tensor):
        return "return a tensor, e.g. student_logits.new_tensor(4.0)"
    if value.shape == (batch_size,):
        return "add a dimension, e.g. .unsqueeze(-1)"
    return "use one value for the batch, e.g. .mean()"
