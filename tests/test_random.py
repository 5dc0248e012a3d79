"""Random numbers: pure functions of their arguments, uniform, and uncorrelated along every argument."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdx.random import permutation, uniform

N = 20_000


@settings(max_examples=50, deadline=None)
@given(st.integers(-(2**70), 2**70), st.integers(0, 1000), st.lists(st.integers(0, 2**40), min_size=1))
def test_a_row_is_the_same_in_whatever_batch_and_width_it_is_drawn(seed: int, epoch: int, index: list[int]) -> None:
    rows = uniform(seed, "view", epoch, index, 5)
    np.testing.assert_array_equal(uniform(seed, "view", epoch, index[::-1], 5), rows[::-1])
    np.testing.assert_array_equal(uniform(seed, "view", epoch, index[-1:], 3)[0], rows[-1, :3])
    assert ((rows >= 0) & (rows < 1)).all()


def test_no_number_comes_twice_whatever_its_seed_stream_epoch_index_and_column() -> None:
    keys = itertools.product((0, 1, -7, 2**63), ("view", "views"), (0, 1, 2))
    numbers = np.concatenate([uniform(*key, np.arange(2000), 8).ravel() for key in keys])
    assert len(np.unique(numbers)) == len(numbers)


@pytest.mark.parametrize(
    "other",
    [(1, "view", 0), (-7, "view", 0), (2**63, "view", 0), (0, "views", 0), (0, "view", 1)],
    ids=["seed", "negative seed", "huge seed", "stream", "epoch"],
)
def test_other_seeds_streams_and_epochs_give_uncorrelated_numbers(other: tuple[int, str, int]) -> None:
    here, there = uniform(0, "view", 0, np.arange(N), 1)[:, 0], uniform(*other, np.arange(N), 1)[:, 0]
    assert abs(np.corrcoef(here, there)[0, 1]) < 4 / N**0.5


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (0, 1), (-1, 3), (2**64 - 1, 7), (2**80 + 1, 199)])
def test_numbers_are_uniform_within_an_epoch_and_for_one_example_over_epochs(seed: int, epoch: int) -> None:
    across_examples = uniform(seed, "view", epoch, np.arange(N), 3)
    over_epochs = np.concatenate([uniform(seed, "view", e, [epoch], 1) for e in range(2000)])
    for column in (*across_examples.T, *over_epochs.T):
        assert stats.kstest(column, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 256])
def test_neighboring_indices_columns_and_epochs_are_uncorrelated(lag: int) -> None:
    numbers, later = uniform(3, "view", 5, np.arange(N), lag + 1), uniform(3, "view", 5 + lag, np.arange(N), 1)
    pairs = [(numbers[lag:, 0], numbers[:-lag, 0]), (numbers[:, 0], numbers[:, lag]), (numbers[:, 0], later[:, 0])]
    for one, other in pairs:
        assert abs(stats.spearmanr(one, other).statistic) < 4 / len(one) ** 0.5
        assert abs(np.corrcoef((one - 0.5) ** 2, (other - 0.5) ** 2)[0, 1]) < 4 / len(one) ** 0.5


def test_pairs_of_columns_fill_the_unit_square_evenly() -> None:
    numbers = uniform(0, "view", 0, np.arange(N), 2)
    counts = np.histogram2d(*numbers.T, bins=20, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


@settings(max_examples=50, deadline=None)
@given(st.integers(-(2**70), 2**70), st.integers(0, 1000), st.integers(0, 300))
def test_a_permutation_names_every_example_once(seed: int, epoch: int, n: int) -> None:
    np.testing.assert_array_equal(np.sort(permutation(seed, "order", epoch, n)), np.arange(n))


def test_every_order_of_four_is_equally_likely() -> None:
    orders = np.stack([permutation(seed, "order", epoch, 4) for seed in range(60) for epoch in range(40)])
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3
