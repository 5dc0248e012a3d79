"""The objective is the weighted sum of the terms' means, and knows what its terms need."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdx.losses import functional
from kdx.losses.ce import CE
from kdx.losses.kl import KL
from kdx.losses.objective import Loss, Objective, Term
from kdx.types import LossContext, Outputs, Progress


class Given(Loss):
    """A loss of given values times a parameter that is 1."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values, self.one = values, nn.Parameter(torch.ones(()))

    def forward(self, outputs: Outputs) -> Tensor:
        return self.values * self.one


@pytest.fixture
def outputs() -> Outputs:
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(8, 5, generator=g), torch.randn(8, 5, generator=g)
    label = torch.arange(8) % 5
    target = 0.7 * torch.eye(5)[label] + 0.3 * torch.eye(5)[label.roll(1)]
    return Outputs(student, teacher, label, target, torch.tensor(3.0))


def test_the_loss_is_the_weighted_sum_of_means_and_the_parts_are_unweighted(outputs: Outputs) -> None:
    objective = Objective({"a": Term(Given(torch.tensor([1.0, 3.0] * 4)), 0.5), "b": Term(Given(torch.tensor(10.0)), 3)})
    loss, parts, _ = objective(outputs)
    assert loss.shape == () and loss.item() == 0.5 * 2 + 3 * 10
    assert {name: part.item() for name, part in parts.items()} == {"a": 2, "b": 10}


def test_a_loss_over_the_whole_batch_may_be_a_scalar(outputs: Outputs) -> None:
    loss, parts, _ = Objective({"batch": Term(Given(torch.tensor(4.0)), 0.25)})(outputs)
    assert (loss.item(), parts["batch"].item()) == (1, 4)


def test_a_weight_scales_the_gradient(outputs: Outputs) -> None:
    given = Given(torch.tensor([1.0, 3.0] * 4))
    Objective({"a": Term(given, 0.5)})(outputs).loss.backward()
    assert given.one.grad is not None and given.one.grad.item() == 0.5 * 2


def test_parameters_of_a_loss_are_the_objectives() -> None:
    given = Given(torch.ones(1))
    assert any(p is given.one for p in Objective({"a": Term(given)}).parameters())


def test_an_objective_without_terms_names_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"No losses to minimize.*losses=\[ce\]"):
        Objective({})


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_is_finite_and_not_negative(weight: float) -> None:
    with pytest.raises(ValueError, match="Term: weight"):
        Term(CE(), weight=weight)


def test_it_names_the_terms_that_need_a_teacher_and_those_that_need_labels() -> None:
    objective = Objective({"hard": Term(CE()), "soft": Term(KL()), "free": Term(Given(torch.ones(1)))})
    assert objective.needs_teacher == ["soft"] and objective.needs_label == ["hard"]


@pytest.mark.parametrize(
    ("warmup", "stop", "expected"),
    [
        (0, None, [2, 2, 2, 2, 2, 2]),
        (4, None, [0.5, 1, 1.5, 2, 2, 2]),
        (0, 3, [2, 2, 2, 0, 0, 0]),
        (2, 4, [1, 2, 2, 2, 0, 0]),
        (0, 1, [2, 0, 0, 0, 0, 0]),
    ],
)
def test_a_weight_warms_up_and_stops_by_the_epoch(
    outputs: Outputs, warmup: int, stop: int | None, expected: list[float]
) -> None:
    objective = Objective({"a": Term(Given(torch.tensor(3.0)), 2.0, warmup, stop)})
    for epoch, weight in enumerate(expected):
        outputs.progress = Progress(epoch / 6, epoch)
        loss, parts, _ = objective(outputs)
        assert (loss.item(), parts["a"].item()) == (3 * weight, 3)  # the part is the loss itself, whatever its weight


def test_each_member_of_an_ensemble_teaches_by_itself_and_labels_teach_once(outputs: Outputs) -> None:
    assert outputs.teacher_logits is not None
    outputs.member_logits = torch.stack([outputs.teacher_logits, outputs.student_logits, -outputs.teacher_logits])
    parts = Objective({"kl": Term(KL()), "ce": Term(CE())})(outputs).parts
    single = [functional.kl(outputs.student_logits, logits, 3.0).mean() for logits in outputs.member_logits]
    torch.testing.assert_close(parts["kl"], sum(single) / 3)
    assert outputs.target is not None
    torch.testing.assert_close(parts["ce"], functional.cross_entropy(outputs.student_logits, outputs.target).mean())


def test_it_asks_for_the_features_of_all_terms_once_and_connects_them() -> None:
    class Looking(Given):
        def connect(self, context: LossContext) -> None:
            self.classes = context.num_classes

    first, second = Looking(torch.ones(1)), Looking(torch.ones(1))
    first.student_features, first.teacher_features = ("stage-1", "pooled"), ("stage1", "stage1")
    second.student_features = ("pooled",)
    objective = Objective({"a": Term(first), "b": Term(second)})
    assert (objective.student_features, objective.teacher_features) == (["pooled", "stage-1"], ["stage1"])
    objective.connect(LossContext(7, 100))
    assert (first.classes, second.classes) == (7, 7)


def test_ce_learns_from_the_mixed_target_and_not_from_the_label(outputs: Outputs) -> None:
    assert outputs.target is not None
    torch.testing.assert_close(CE()(outputs), functional.cross_entropy(outputs.student_logits, outputs.target))


@pytest.mark.parametrize("tau_squared", [True, False])
def test_kl_is_from_teacher_to_student_at_the_steps_temperature(outputs: Outputs, tau_squared: bool) -> None:
    assert outputs.teacher_logits is not None
    expected = functional.kl(outputs.student_logits, outputs.teacher_logits, 3.0, tau_squared)
    torch.testing.assert_close(KL(tau_squared)(outputs), expected)


@pytest.mark.parametrize(("loss", "missing"), [(CE(), "label"), (KL(), "teacher_logits"), (KL(), "temperature")])
def test_a_loss_does_not_go_on_without_what_it_needs(outputs: Outputs, loss: Loss, missing: str) -> None:
    outputs.mixed_target = None
    setattr(outputs, missing, None)
    with pytest.raises(AssertionError):
        loss(outputs)
