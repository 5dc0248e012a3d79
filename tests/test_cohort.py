"""Deep mutual learning against the paper's formulas, and that a cohort learns as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from kdx.distiller import Cohort
from kdx.losses.ce import CE
from kdx.losses.kl import KL
from kdx.losses.objective import Objective, Term
from kdx.networks.network import Network
from kdx.teachers.ensemble import Combine
from kdx.temperatures.schedules import Constant
from kdx.training.step import forward
from kdx.types import Batch, Progress

PROGRESS = Progress(0.5, 3)


def cohort(how: Combine) -> Cohort:
    torch.manual_seed(0)
    peers = {"a": Network("cifar_resnet8", 5), "b": Network("cifar_resnet14", 5)}
    return Cohort(Network("cifar_resnet8", 5), peers, Constant(1.0), how).eval()


@pytest.fixture
def batch() -> Batch:
    label = torch.tensor([0, 1, 4, 2])
    return Batch(torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), None, label, torch.eye(5)[label])


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    """KL(teacher || student), mean over the batch, of probabilities and logits."""
    return float((teacher * (np.log(teacher) - log_softmax(student, -1))).sum(-1).mean())


@pytest.mark.parametrize("how", ["losses", "probs"])
def test_everyone_minimizes_cross_entropy_and_divergence_from_the_rest(how: Combine, batch: Batch) -> None:
    members = cohort(how)
    outputs = forward(members, batch, PROGRESS)
    objective = Objective({"kl": Term(KL(), 0.5), "ce": Term(CE(), 0.5)})
    logits = {name: said.student_logits.detach().double().numpy() for name, said in outputs.peers.items()}
    logits["student"] = outputs.student_logits.detach().double().numpy()
    assert batch.label is not None
    for name, said in {"student": outputs, **outputs.peers}.items():
        others = [softmax(z, -1) for who, z in logits.items() if who != name]
        taught = (
            np.mean([divergence(p, logits[name]) for p in others])  # DML: the mean of one KL for each peer
            if how == "losses"
            else divergence(np.mean(others, 0), logits[name])  # DML_e: one KL with their mean probability
        )
        labels = -log_softmax(logits[name], -1)[np.arange(4), batch.label.numpy()].mean()
        assert objective(said).loss.item() == pytest.approx(0.5 * taught + 0.5 * labels, rel=1e-5)


def test_a_peer_teaches_without_learning_from_what_it_says(batch: Batch) -> None:
    members = cohort("losses")
    objective = Objective({"kl": Term(KL())})
    objective(forward(members, batch, PROGRESS)).loss.backward()
    assert all(p.grad is not None for p in members.student.parameters())
    assert all(p.grad is None for p in members.peers.parameters())


def test_the_update_is_synchronous(batch: Batch) -> None:
    """The gradient of everyone's sum is, for each, the gradient of its own loss against what the others said before."""
    members = cohort("losses")
    objective = Objective({"kl": Term(KL())})
    outputs = forward(members, batch, PROGRESS)
    torch.stack([objective(said).loss for said in (outputs, *outputs.peers.values())]).sum().backward()
    together = [p.grad.clone() for p in members.peers["a"].parameters() if p.grad is not None]
    members.zero_grad()
    objective(forward(members, batch, PROGRESS).peers["a"]).loss.backward()
    alone = [p.grad for p in members.peers["a"].parameters() if p.grad is not None]
    for x, y in zip(together, alone, strict=True):
        torch.testing.assert_close(x, y)
