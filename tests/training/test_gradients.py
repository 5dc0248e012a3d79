"""Norms of the losses' gradients at the logits."""

from __future__ import annotations

import pytest
import torch

from kdx.losses.ce import CE
from kdx.losses.kl import KL
from kdx.losses.objective import Objective, Term
from kdx.training.gradients import gradient_norms
from kdx.types import Outputs


def outputs() -> Outputs:
    """Logits of both networks, far apart."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(6, 5, generator=generator, requires_grad=True)
    teacher = 3 * torch.randn(6, 5, generator=generator)
    label = torch.arange(6) % 5
    return Outputs(student, teacher, label, torch.eye(5)[label], temperature=torch.tensor(2.0))


def test_norms_are_the_gradients_in_closed_form() -> None:
    said = outputs()
    scored = Objective({"kl": Term(KL(), 0.9), "ce": Term(CE(), 0.1)})(said)
    found = gradient_norms(scored.weighted, said.student_logits, ["kl"])
    probs = said.student_logits.softmax(-1)
    ce = 0.1 * (probs - torch.eye(5)[said.label]) / 6
    kl = 0.9 * 2.0 * ((said.student_logits / 2).softmax(-1) - (said.teacher_logits / 2).softmax(-1)) / 6
    torch.testing.assert_close(found["gradient_ce"], ce.norm().detach())
    torch.testing.assert_close(found["gradient_kl"], kl.norm().detach())
    torch.testing.assert_close(found["gradient_ratio"], (kl.norm() / ce.norm()).detach())


def test_the_steps_own_backward_pass_is_what_it_was() -> None:
    said, other = outputs(), outputs()
    objective = Objective({"kl": Term(KL()), "ce": Term(CE())})
    scored = objective(said)
    gradient_norms(scored.weighted, said.student_logits, ["kl"])
    scored.loss.backward()
    objective(other).loss.backward()
    assert torch.equal(said.student_logits.grad, other.student_logits.grad)


@pytest.mark.parametrize("terms", [{"ce": Term(CE())}, {"kl": Term(KL()), "ce": Term(CE(), 0.0)}])
def test_the_ratio_needs_both_sides_and_never_divides_by_zero(terms: dict[str, Term]) -> None:
    said = outputs()
    found = gradient_norms(Objective(terms)(said).weighted, said.student_logits, ["kl"])
    assert ("gradient_ratio" in found) == (len(terms) == 2)
    assert all(torch.isfinite(value) for value in found.values())


def test_what_does_not_look_at_the_logits_has_no_pull() -> None:
    said = outputs()
    other = torch.ones(3, requires_grad=True)
    assert gradient_norms({"hint": other.sum(), "fixed": torch.ones(())}, said.student_logits, ["hint"]) == {}
