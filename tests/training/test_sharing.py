"""Runs one after the other: what is made once, and that nothing is kept for long."""

from __future__ import annotations

import gc
import weakref

import pytest

from kdx.training.sharing import Sharing, Successive


class Made:
    """Something large."""


def test_equal_runs_share_what_one_has_made() -> None:
    sharing = Successive()
    first = sharing.once("train", lambda: {"pixels": 1}, Made)
    assert sharing.once("train", lambda: {"pixels": 1}, Made) is first
    assert sharing.once("val", lambda: {"pixels": 1}, Made) is not first


def test_another_one_is_made_for_a_run_that_differs_and_the_first_is_gone_before() -> None:
    sharing = Successive()
    first = weakref.ref(sharing.once("train", lambda: {"pixels": 1}, Made))

    def make() -> Made:
        gc.collect()
        assert first() is None  # they are never in memory together
        return Made()

    second = sharing.once("train", lambda: {"pixels": 2}, make)
    assert sharing.once("train", lambda: {"pixels": 2}, Made) is second


def test_a_failure_is_not_kept() -> None:
    sharing, failing = Successive(), [ValueError("no memory")]

    def make() -> Made:
        if failing:
            raise failing.pop()
        return Made()

    with pytest.raises(ValueError, match="no memory"):
        sharing.once("train", dict, make)
    assert isinstance(sharing.once("train", dict, make), Made)


def test_a_run_by_itself_shares_nothing() -> None:
    sharing = Sharing()
    assert sharing.once("train", dict, Made) is not sharing.once("train", dict, Made)
