"""Ten training steps in plain PyTorch, as in a notebook. As a script: print the losses and whether Lightning was imported."""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor

from kdx.distiller import Cohort, Distiller
from kdx.losses.ce import CE
from kdx.losses.kl import KL
from kdx.losses.objective import Objective, Term
from kdx.networks.network import Network
from kdx.teachers.ensemble import Ensemble
from kdx.teachers.teacher import OnlineTeacher, Teacher
from kdx.temperatures.curriculum import InstanceCurriculum
from kdx.temperatures.schedules import Linear
from kdx.training.step import step
from kdx.types import Batch, Progress

KINDS = ("teacher", "ensemble", "cohort", "learned")
STEPS, B, K, LR = 10, 12, 5, 0.05


def make(kind: str) -> tuple[Distiller | Cohort, Objective, list[Batch]]:
    """Fresh networks, losses and batches; the same at every call."""
    torch.manual_seed(0)
    objective = Objective({"kl": Term(KL(), 0.5), "ce": Term(CE(), 0.5)})
    student, others = Network("cifar_resnet8", K), [Network("cifar_resnet8", K) for _ in range(2)]
    distiller: Distiller | Cohort
    if kind == "cohort":
        distiller = Cohort(student, {"a": others[0], "b": others[1]}, Linear())
    else:
        members = [OnlineTeacher(network) for network in others]
        teacher: Teacher = Ensemble({"a": members[0], "b": members[1]}, "losses") if kind == "ensemble" else members[0]
        distiller = Distiller(student, teacher, InstanceCurriculum(ramp="constant") if kind == "learned" else Linear())
    if distiller.temperature is not None:
        distiller.temperature.connect(K)
    return distiller, objective, [batch(number) for number in range(STEPS)]


def batch(number: int) -> Batch:
    """Random images and labels."""
    g = torch.Generator().manual_seed(number)
    label = torch.randint(K, (B,), generator=g)
    images = torch.rand(B, 3, 8, 8, generator=g)
    return Batch(images, torch.rand(B, 3, 16, 16, generator=g), label, torch.eye(K)[label])


def losses(kind: str) -> list[float]:
    """The loss of each step of SGD."""
    distiller, objective, batches = make(kind)
    optimizer = torch.optim.SGD([*distiller.parameters(), *objective.parameters()], LR)
    values: list[Tensor] = []
    for number, examples in enumerate(batches):
        result = step(distiller, objective, examples, Progress(number / STEPS, 0))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        values.append(result.loss.detach())
    return [value.item() for value in values]


if __name__ == "__main__":
    torch.set_num_threads(1)
    curves = {kind: losses(kind) for kind in KINDS}
    print(json.dumps({"losses": curves, "lightning": "pytorch_lightning" in sys.modules}))
