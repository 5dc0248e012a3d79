"""The sampler: every rank and every resume sees its part of one and the same plan."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdx.data.sampler import Sampler


def indices(sampler: Sampler, epoch: int = 0, first: int = 0) -> list[list[int]]:
    return [index.tolist() for _, index in sampler.batches(epoch, first)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 40), st.integers(-(2**63), 2**63), st.integers(0, 300))
def test_ranks_share_out_every_global_training_batch_in_order(world: int, local: int, rest: int, seed: int, epoch: int) -> None:
    alone = Sampler(world * local + rest, world * local, seed, train=True)
    ranks = [replace(alone, rank=rank, world=world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for whole, *parts in zip(indices(alone, epoch), *(indices(rank, epoch) for rank in ranks), strict=True):
        assert all(len(part) == local for part in parts)
        assert list(chain(*parts)) == whole


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(0, 60), st.integers(), st.integers(0, 300))
def test_a_training_epoch_shows_no_example_twice_and_drops_less_than_a_batch(
    batch: int, rest: int, seed: int, epoch: int
) -> None:
    sampler = Sampler(batch + rest, batch, seed, train=True)
    seen = list(chain(*indices(sampler, epoch)))
    assert len(set(seen)) == len(seen) > sampler.size - batch
    assert set(seen) <= set(range(sampler.size))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [indices(Sampler(64, 8, seed, train=True), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_halo_is_the_predecessor_in_the_global_batch_and_the_last_before_the_first(world: int) -> None:
    alone = Sampler(50, 8, train=True)
    for rank in range(world):
        haloed = indices(replace(alone, halo=1, rank=rank, world=world))
        own = indices(replace(alone, rank=rank, world=world))
        for whole, (before, *rest), share in zip(indices(alone), haloed, own, strict=True):
            assert rest == share
            assert before == whole[whole.index(share[0]) - 1]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 70), st.sampled_from([1, 2, 3]), st.integers(1, 8))
def test_evaluation_shows_every_example_to_exactly_one_rank_exactly_once(size: int, world: int, local: int) -> None:
    ranks = [Sampler(size, world * local, rank=rank, world=world) for rank in range(world)]
    shares = [indices(rank) for rank in ranks]
    assert list(chain(*chain(*shares))) == list(range(size))
    assert [len(share) for share in shares] == [len(rank) for rank in ranks]
    assert all(0 < len(batch) <= local for share in shares for batch in share)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("first", [0, 1, 4, 6])
def test_resuming_at_a_batch_gives_the_tail_of_the_epoch_with_its_numbers(first: int, train: bool) -> None:
    sampler = Sampler(50, 8, seed=3, train=train)
    whole, tail = list(sampler.batches(2)), list(sampler.batches(2, first))
    assert [number for number, _ in whole] == list(range(len(sampler)))
    assert [number for number, _ in tail] == [number for number, _ in whole][first:]
    np.testing.assert_equal([index for _, index in tail], [index for _, index in whole][first:])


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"size": 20, "batch_size": 32, "train": True}, "set data.batch_size to at most 20"),
        ({"size": 90, "batch_size": 32, "world": 3}, "must divide by their number, 3"),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused_with_the_remedy(arguments: dict[str, int], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        Sampler(**arguments)


def test_a_buffer_shuffles_within_runs_of_consecutive_examples() -> None:
    for size, buffer in ((1000, 160), (1003, 160), (50, 7), (20, 100)):
        order = Sampler(size, 1, seed=3, train=True, buffer=buffer)._order(2)
        assert sorted(order) == list(range(size))
        assert (order == Sampler(size, 1, seed=3, train=True, buffer=buffer)._order(2)).all()
        assert (order != Sampler(size, 1, seed=3, train=True, buffer=buffer)._order(3)).any()
    first = np.sort(Sampler(100_000, 1, train=True, buffer=1600)._order(0)[:1600])
    assert (np.diff(first) > 1).sum() <= 16  # a buffer is read in few runs
    whole = Sampler(20, 1, seed=3, train=True)
    assert (whole._order(2) == Sampler(20, 1, seed=3, train=True, buffer=100)._order(2)).all()
