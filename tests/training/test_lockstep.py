"""Runs in lock-step: which one works, what is computed once, and that their random numbers are their own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kdx.training import lockstep
from kdx.training.lockstep import InTurn, Lane, Lockstep, process_state
from kdx.training.sharing import Sharing

Work = Callable[[Lane], None]


def run(**works: Work) -> None:
    """Run works in lock-step, each in its lane."""
    together = Lockstep(list(works))

    def suppressed(work: Work, lane: Lane) -> None:
        with suppress(ZeroDivisionError):
            work(lane)

    together.run([partial(suppressed, work) for work in works.values()])
    assert together.working is None and not together.lanes


def steps(done: list[str], lane: Lane, first: int, last: int) -> None:
    for number in range(first, last):
        lane.turn((0, number))
        done.append(f"{lane.name}{number}")


def test_the_run_that_is_furthest_behind_is_next() -> None:
    done: list[str] = []
    run(a=lambda lane: steps(done, lane, 2, 5), b=lambda lane: steps(done, lane, 0, 4), c=lambda lane: steps(done, lane, 2, 3))
    assert done == ["b0", "b1", "a2", "b2", "c2", "a3", "b3", "a4"]


def test_a_run_that_fails_harms_no_other() -> None:
    done: list[str] = []

    def fails(lane: Lane) -> None:
        steps(done, lane, 0, 1)
        raise ZeroDivisionError

    run(a=fails, b=lambda lane: steps(done, lane, 0, 3))
    assert done == ["a0", "b0", "b1", "b2"]


def test_an_interrupt_ends_all_runs_and_each_cleans_up() -> None:
    done: list[str] = []

    def works(lane: Lane) -> None:
        try:
            steps(done, lane, 0, 2)
            raise KeyboardInterrupt
        finally:
            done.append(f"{lane.name} ends")

    with pytest.raises(KeyboardInterrupt):
        run(a=works, b=works)
    assert done == ["a0", "b0", "a1", "a ends", "b ends"]


def test_each_run_cleans_up_also_where_another_one_fails_to() -> None:
    together, ended = Lockstep(["a", "b", "c"]), list[str]()

    def works(lane: Lane) -> None:
        try:
            lane.turn((0, 0))
            raise KeyboardInterrupt
        finally:
            assert together.working is lane  # whose log it is
            ended.append(lane.name)
            if lane.name == "c":
                raise OSError

    with pytest.raises(OSError):
        together.run([works, works, works])
    assert sorted(ended) == ["a", "b", "c"]


def test_runs_work_in_the_thread_of_the_caller() -> None:
    seen: list[int] = []

    def works(lane: Lane) -> None:
        lane.turn((0, 0))
        seen.append(threading.get_ident())

    run(a=works, b=works)
    assert seen == [threading.get_ident()] * 2


def test_a_run_that_hands_over_without_gradients_is_a_fault() -> None:
    def works(lane: Lane) -> None:
        with torch.no_grad():
            steps([], lane, 0, 2)

    with pytest.raises(AssertionError, match="that of the other runs"):
        run(a=works, b=works)
    assert torch.is_grad_enabled()


def test_what_has_the_same_key_is_made_once_a_position() -> None:
    made: list[tuple[str, int]] = []
    found: dict[str, list[str]] = {"a": [], "b": [], "c": []}

    def works(lane: Lane, key: str, first: int) -> None:
        def make(number: int) -> str:
            made.append((lane.name, number))
            return f"{key}{number}"

        for number in range(first, 3):
            lane.turn((0, number))
            found[lane.name].append(lane.shared(key, partial(make, number)))

    run(a=partial(works, key="x", first=0), b=partial(works, key="y", first=0), c=partial(works, key="x", first=1))
    assert found == {"a": ["x0", "x1", "x2"], "b": ["y0", "y1", "y2"], "c": ["x1", "x2"]}
    assert made == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def numbers() -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(()).item()]


def test_random_numbers_and_settings_of_torch_are_those_of_a_run_by_itself() -> None:
    def works(lane: Lane, seed: int, drawn: list[list[float]]) -> None:
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        torch.use_deterministic_algorithms(seed == 1)
        for number in range(3):
            lane.turn((0, number))
            assert torch.are_deterministic_algorithms_enabled() == (seed == 1)
            drawn.append(numbers())

    before = process_state()
    alone: list[list[list[float]]] = [[], []]
    together: list[list[list[float]]] = [[], []]
    for seed in (0, 1):
        run(a=partial(works, seed=seed, drawn=alone[seed]))
    run(a=partial(works, seed=0, drawn=together[0]), b=partial(works, seed=1, drawn=together[1]))
    before()
    assert together == alone and alone[0] != alone[1]


class Order:
    """A sampler of 4 batches."""

    def batches(self, epoch: int, first: int = 0) -> Iterator[tuple[int, list[int]]]:
        return ((number, [number]) for number in range(first, 4))

    def __len__(self) -> int:
        return 4


def loader(rendered: list[tuple[str, int]], name: str, first: int) -> Any:
    def batches(epoch: int, first: int) -> Iterator[Any]:
        for number in range(first, 4):
            rendered.append((name, number))
            yield SimpleNamespace(number=number, skipped={number: "bad"} if number == 2 else {})

    own = {"images": None, "look": None, "on_bad_image": "raise", "skipped": {}}
    return SimpleNamespace(order=Order(), position=lambda: (0, first), batches=batches, **own)


@pytest.mark.parametrize("leaves", [4, 2])
def test_a_batch_is_rendered_once_also_after_the_run_that_rendered_it_has_left(leaves: int) -> None:
    rendered: list[tuple[str, int]] = []
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    def works(lane: Lane, first: int, last: int) -> None:
        own = loader(rendered, lane.name, first)
        for batch in lane.batches(lambda: {"seed": 0}, own, own.position):
            if batch.number == last:
                return
            seen[lane.name].append(batch.number)
        assert own.skipped == {2: "bad"}  # also of batches that another run has rendered

    run(a=partial(works, first=0, last=leaves), b=partial(works, first=1, last=9), c=partial(works, first=0, last=9))
    assert seen == {"a": [0, 1, 2, 3][:leaves], "b": [1, 2, 3], "c": [0, 1, 2, 3]}
    assert [number for _, number in rendered] == [0, 1, 2, 3]
    assert {name for name, _ in rendered} == {"a"} if leaves == 4 else {"a", "b"}


def test_the_log_says_why_a_run_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(lockstep.log, "info", lambda text, *values: lines.append(text % values))

    def works(lane: Lane, seed: int) -> None:
        lane.batches(lambda: {"seed": seed, "views": {}}, loader([], lane.name, 0), lambda: (0, 0))

    run(a=partial(works, seed=0), b=partial(works, seed=0), c=partial(works, seed=1))
    assert lines == ["The training batches are not those of a, and are computed for this run: seed differ"]


def test_a_clock_leaves_out_the_turns_of_others() -> None:
    worked: dict[str, float] = {}

    def works(lane: Lane, seconds: float) -> None:
        began = lane.clock()
        lane.turn((0, 0))
        time.sleep(seconds)
        lane.turn((0, 1))
        worked[lane.name] = lane.clock() - began

    run(a=partial(works, seconds=0.0), b=partial(works, seconds=0.3))
    assert worked["a"] < 0.2 < 0.3 <= worked["b"]


def test_a_run_by_itself_shares_nothing() -> None:
    alone, own = Sharing(), loader([], "a", 0)
    assert alone.batches(dict, own, own.position) is own and not isinstance(own, InTurn)
    assert alone.answers(dict, lambda batch: torch.ones(1), None) is None
    assert [alone.once("x", dict, lambda: number) for number in (1, 2)] == [1, 2]
