"""The examples furthest apart are the ones that a sort of all would find."""

from __future__ import annotations

import pytest
import torch

from kdx.metrics import functional
from kdx.metrics.disagreement import Disagreement
from kdx.types import Outputs


def example(size: int = 101) -> Outputs:
    g = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(size, 5, generator=g) for _ in range(2))
    return Outputs(student, teacher, torch.randint(0, 5, (size,), generator=g), index=torch.arange(size))


def part(outputs: Outputs, rows: torch.Tensor) -> Outputs:
    assert outputs.teacher_logits is not None and outputs.label is not None
    return Outputs(outputs.student_logits[rows], outputs.teacher_logits[rows], outputs.label[rows], index=rows)


def test_they_are_those_with_the_largest_kl_with_what_was_said_of_them() -> None:
    outputs = example()
    disagreement = Disagreement(6)
    for rows in torch.arange(101).split(17):
        disagreement.update(part(outputs, rows))
    found = disagreement.compute()
    assert outputs.teacher_logits is not None and outputs.label is not None
    student, teacher = (z.double().log_softmax(-1) for z in (outputs.student_logits, outputs.teacher_logits))
    kl = functional.kl(student, teacher, teacher.exp())
    expected = kl.argsort(descending=True)[:6]
    assert [row["index"] for row in found] == expected.tolist()
    assert [row["kl"] for row in found] == pytest.approx(kl[expected].tolist())
    for row in found:
        i = row["index"]
        assert row["label"] == outputs.label[i]
        for who, log_probs in (("teacher", teacher), ("student", student)):
            assert row[who] == log_probs[i].argmax()
            assert row[f"{who}_confidence"] == pytest.approx(log_probs[i].max().exp().item())


def test_ranks_and_order_do_not_matter_even_where_all_are_equally_far() -> None:
    outputs = example()
    assert outputs.teacher_logits is not None
    outputs.teacher_logits[50:] = outputs.teacher_logits[50]
    outputs.student_logits[50:] = -outputs.teacher_logits[50]
    whole = Disagreement(16)
    whole.update(outputs)
    order = torch.randperm(101, generator=torch.Generator().manual_seed(0))
    first, second = Disagreement(16), Disagreement(16)
    for rows in order[:60].split(13):
        first.update(part(outputs, rows))
    second.update(part(outputs, order[60:]))
    first.merge_state(second)
    assert first.compute() == whole.compute()
    assert len(whole.compute()) == 16


def test_fewer_examples_than_asked_for_are_all_there_is_and_a_label_may_be_unknown() -> None:
    outputs = example(3)
    outputs.label = None
    disagreement = Disagreement(16)
    disagreement.update(outputs)
    found = disagreement.compute()
    assert sorted(row["index"] for row in found) == [0, 1, 2]
    assert {row["label"] for row in found} == {-1}
    assert [row["kl"] for row in found] == sorted((row["kl"] for row in found), reverse=True)
