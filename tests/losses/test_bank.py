"""The memory bank: whom it draws, what it remembers, that it is saved, and that ranks agree on it."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from kdx.losses.bank import Bank, Draws, gathered

LABELS = torch.tensor([7, 3, 7, 7, 9, 3, 9, 9, 9, 7])  # of ten examples; 3 is rare, and no class is called 0


def uniform(counts: Tensor) -> bool:
    """Whether all counts are within 4.5 standard deviations of their mean."""
    mean = counts.float().mean()
    return bool(((counts - mean).abs() < 4.5 * mean.sqrt()).all())


@pytest.mark.parametrize("relax", [False, True])
def test_negatives_are_uniform_over_all_examples_of_other_classes(relax: bool) -> None:
    index = torch.arange(10)
    drawn = Draws(LABELS)(index, 20_000, relax)
    assert drawn.shape == (10, 20_001)
    for i in range(10):
        others = [j for j in range(10) if LABELS[j] != LABELS[i]]
        counts = torch.bincount(drawn[i, 1:], minlength=10)
        assert counts.nonzero().flatten().tolist() == others
        assert uniform(counts[others])


def test_the_positive_is_the_example_itself_or_any_of_its_class() -> None:
    draws, index = Draws(LABELS), torch.arange(10).repeat_interleave(3000)
    assert torch.equal(draws(index, 1, relax=False)[:, 0], index)
    positives = draws(index, 1, relax=True)[:, 0].reshape(10, 3000)
    for i in range(10):
        own = [j for j in range(10) if LABELS[j] == LABELS[i]]
        counts = torch.bincount(positives[i], minlength=10)
        assert counts.nonzero().flatten().tolist() == own
        assert uniform(counts[own])


def test_draws_of_one_example_are_independent() -> None:
    first, second = Draws(LABELS)(torch.zeros(60_000, dtype=torch.long), 2, False)[:, 1:].T
    together = torch.bincount(first * 10 + second, minlength=100).reshape(10, 10)
    others = [1, 4, 5, 6, 7, 8]
    assert uniform(together[others][:, others])


def test_one_class_has_no_negatives() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        Draws(torch.zeros(5, dtype=torch.long))


def test_scores_compare_each_network_with_the_others_memory() -> None:
    bank = Bank(10, 4)
    student, teacher, drawn = torch.randn(3, 4), torch.randn(3, 4), torch.randint(10, (3, 6))
    of_student, of_teacher = bank.scores(student, teacher, drawn, 0.5)
    for b in range(3):
        for p in range(6):
            assert of_student[b, p].item() == pytest.approx(
                2 * float(student[b] @ bank.rows[1][drawn[b, p]]), rel=1e-5, abs=1e-6
            )
            assert of_teacher[b, p].item() == pytest.approx(
                2 * float(teacher[b] @ bank.rows[0][drawn[b, p]]), rel=1e-5, abs=1e-6
            )


def test_rows_start_at_a_mean_square_length_of_1() -> None:
    bank = Bank(2000, 128)
    for rows in bank.rows:
        assert rows.square().sum(1).mean().item() == pytest.approx(1, rel=0.01)
        assert rows.abs().max().item() == pytest.approx(math.sqrt(3 / 128), rel=1e-3)
    assert not torch.equal(*bank.rows)


def test_z_is_n_times_the_mean_exponential_of_the_first_scores_and_then_constant() -> None:
    bank = Bank(10, 4)
    first, second = torch.randn(2, 3, 6, dtype=torch.float64) * 5
    found = bank.normalization(first, second)
    expected = [np.log(10 * np.exp(side.numpy()).mean()) for side in (first, second)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert bank.normalization(second, first) is found or torch.equal(bank.normalization(second, first), found)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 1.0])
def test_rows_move_towards_the_embeddings_and_keep_length_1(momentum: float) -> None:
    bank = Bank(10, 4, momentum)
    before = [rows.clone() for rows in bank.rows]
    student, teacher, index = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([8, 0, 5])
    bank.update(student, teacher, index)
    state = bank.get_extra_state()
    for old, new, name in zip(before, (student, teacher), ("student", "teacher"), strict=True):
        moved = momentum * old[index] + (1 - momentum) * new
        torch.testing.assert_close(state[name][index], moved / moved.norm(dim=1, keepdim=True))
        rest = [i for i in range(10) if i not in index.tolist()]
        assert torch.equal(state[name][rest], old[rest])


def test_an_update_waits_for_the_backward_pass_and_is_seen_by_the_next_step() -> None:
    bank = Bank(10, 4, momentum=0.0)
    embedding = torch.nn.functional.normalize(torch.randn(2, 4), dim=1).requires_grad_()
    index = torch.tensor([3, 7])
    scores = bank.scores(embedding, embedding, index[:, None], 1.0)
    bank.update(embedding, embedding, index)
    sum(scores).sum().backward()
    again = bank.scores(embedding, embedding, index[:, None], 1.0)
    torch.testing.assert_close(again[0].detach(), torch.ones(2, 1))


def saved(bank: Bank) -> dict[str, object]:
    """Its state as read back from a file of plain data."""
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_state_comes_back_from_a_checkpoint_of_plain_data_and_holds_no_buffer() -> None:
    bank, index = Bank(10, 4), torch.tensor([1, 2, 3])
    embeddings = torch.randn(2, 3, 4)
    bank.normalization(*bank.scores(*embeddings, index[:, None], 0.1))
    bank.update(*embeddings, index)
    assert not list(bank.buffers()) and not list(bank.parameters())
    other = Bank(10, 4)
    other.load_state_dict(saved(bank))
    for a, b in zip(bank.rows, other.rows, strict=True):
        assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()
    assert bank.log_z is not None and other.log_z is not None and torch.equal(bank.log_z, other.log_z)
    fresh = Bank(10, 4)
    fresh.load_state_dict(saved(Bank(10, 4)))
    assert fresh.log_z is None


def test_the_state_of_another_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory bank in the checkpoint has shape \(10, 4\).*expected \(12, 4\)"):
        Bank(12, 4).load_state_dict(saved(Bank(10, 4)))


def test_alone_there_is_nothing_to_gather() -> None:
    a, b = torch.randn(3, 2), torch.arange(3)
    assert all(x is y for x, y in zip(gathered(a, b), (a, b), strict=True))


def _rank(rank: int, folder: str) -> None:
    """One of two ranks: banks that start differently, batches of different lengths, three steps."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    bank = Bank(10, 4)
    mine = [torch.tensor([0, 1, 2]), torch.tensor([3, 4])][rank]
    steps = []
    for _ in range(3):
        student, teacher = torch.nn.functional.normalize(torch.randn(2, len(mine), 4), dim=-1)
        scores = bank.scores(student, teacher, mine[:, None], 0.1)
        bank.normalization(*scores)
        bank.update(student, teacher, mine)
        steps.append((student, teacher, mine, scores))
    torch.save((bank.state_dict(), steps), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_hold_the_same_bank_which_is_that_of_one(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    states, steps = zip(*(torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)), strict=True)
    ours, theirs = (state["_extra_state"] for state in states)
    assert all(torch.equal(ours[name], theirs[name]) for name in ("student", "teacher", "log_z"))
    torch.manual_seed(0)
    alone = Bank(10, 4)  # as rank 0 draws it
    for a, b in zip(*steps, strict=True):
        student, teacher, index = (torch.cat([x, y]) for x, y in zip(a[:3], b[:3], strict=True))
        alone.update(student, teacher, index)
    torch.testing.assert_close(alone.get_extra_state()["student"], ours["student"])
    torch.testing.assert_close(alone.get_extra_state()["teacher"], ours["teacher"])
    means = torch.stack([_mean_exponentials(rank[0][3]) for rank in steps]).mean(0)
    torch.testing.assert_close(ours["log_z"].exp(), 10 * means)


def _mean_exponentials(scores: tuple[Tensor, Tensor]) -> Tensor:
    return torch.stack([side.exp().mean() for side in scores])
