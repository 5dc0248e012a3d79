"""Runs in lock-step: they take turns in one thread, batch by batch; what they have in common is computed once."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from kdx.config.identity import digest
from kdx.data.loaders import Loader, Position, Ticket
from kdx.training.answering import Answering, TeacherAnswers
from kdx.training.interruption import Interruption
from kdx.training.random_state import put_random_state, random_state
from kdx.training.sharing import About, Sharing
from kdx.types import Batch, RenderedBatch

log = logging.getLogger("kdx")

T = TypeVar("T")
Place = tuple[int, int]  # an epoch, and a batch in it
NOT_BEGUN: Place = (-1, 0)


class Lane(Sharing):
    """A run in lock-step with others: it works within `Lockstep.run`."""

    def __init__(self, lockstep: Lockstep, name: str) -> None:
        super().__init__(lockstep.interruption)
        self.lockstep, self.name = lockstep, name
        self.place, self.waited = NOT_BEGUN, 0.0

    def turn(self, place: Place) -> None:
        """Let all runs work that are behind this `place`, at which the run is now. Return when it is its turn."""
        self.place = place
        if self.lockstep.next() is self:
            return
        assert torch.is_grad_enabled(), "what torch has for the thread would be that of the other runs too"
        began, put_back = time.perf_counter(), process_state()
        self.lockstep.hub.switch()
        put_back()
        self.waited += time.perf_counter() - began

    def clock(self) -> float:
        return time.perf_counter() - self.waited

    def once(self, name: str, about: About, make: Callable[[], T]) -> T:
        return self.lockstep.remembered(f"{name} {digest(about())}", NOT_BEGUN, make)

    def batches(self, about: About, loader: Loader, position: Position) -> Loader:
        return InTurn(loader, self, self._key("training batches", about()), position)

    def answers(self, about: About, live: Callable[[Batch], Tensor], kept: Answering | None) -> TeacherAnswers | None:
        return SharedAnswers(self, self._key("teacher's answers", about()), live, kept)

    def shared(self, key: str, make: Callable[[], T]) -> T:
        """Return what `make` returns, or has returned to another run for this key at the same place."""
        return self.lockstep.remembered(key, self.place, make)

    def _key(self, what: str, about: Mapping[str, Any]) -> str:
        """Return the key of what the runs may share. If this run does not share it, the log says why."""
        others = self.lockstep.abouts.setdefault(what, {})
        if about not in others.values() and others:
            name, other = next(iter(others.items()))
            differ = ", ".join(key for key in about if about[key] != other.get(key))
            log.info("The %s are not those of %s, and are computed for this run: %s differ", what, name, differ)
        others[self.name] = about
        return f"{what} {digest(about)}"


class Lockstep:
    """Runs of which one works at a time. It hands over to the next when it is about to ask for a batch.

    Next is the run that is furthest behind, so that one that goes on from a checkpoint meets the others. Of what the runs have
    in common, only the last place is kept: each has taken it before the first one goes on.

    Each is a greenlet, all in the thread that calls `run`: with a thread each, OpenMP would have a pool of workers for each,
    which get in each other's way (a step of a resnet20 takes 1.4 times as long), and malloc an arena.

    Args:
        names: those of the runs, in the order in which they work.
    """

    hub: greenlet  # in which `run` chooses who works

    def __init__(self, names: Sequence[str]) -> None:
        self.interruption = Interruption()
        self.lanes = [Lane(self, name) for name in names]
        self.working: Lane | None = None
        self.abouts: dict[str, dict[str, Mapping[str, Any]]] = {}  # kind of what is shared -> run -> on what it depends
        self._memory: dict[str, tuple[Place, Any]] = {}

    def run(self, works: Sequence[Callable[[Lane], None]]) -> None:
        """Let each lane do its work, one for each, until all have ended. An exception ends all, and is raised."""
        self.hub = getcurrent()
        running = {lane: greenlet(functools.partial(work, lane)) for lane, work in zip(self.lanes, works, strict=True)}
        try:
            while self.lanes:
                self.working = self.next()
                running[self.working].switch()
                if running[self.working].dead:
                    self.lanes.remove(self.working)
        finally:
            with ExitStack() as stack:  # each cleans up, even if another one fails to
                for lane, one in running.items():
                    stack.callback(self._end, lane, one)
            self.lanes, self.working = [], None

    def _end(self, lane: Lane, run: greenlet) -> None:
        self.working = lane
        run.throw()  # nothing, if it has ended

    def next(self) -> Lane:
        """Return the run that is to work next."""
        return min(self.lanes, key=lambda lane: lane.place)

    def remembered(self, key: str, place: Place, make: Callable[[], T]) -> T:
        """Return what `make` returns, or has returned, for this key and place. Only the run that works may ask."""
        known = self._memory.get(key)
        if known is None or known[0] != place:
            known = self._memory[key] = place, make()
        value: T = known[1]
        return value


class InTurn(Loader):
    """The batches of a loader, each at the run's turn, and rendered only if no other run has rendered it."""

    def __init__(self, loader: Loader, lane: Lane, key: str, position: Position) -> None:
        super().__init__(loader.images, loader.order, loader.look, loader.position, loader.on_bad_image)
        self.loader, self.lane, self.key, self.skipped = loader, lane, key, loader.skipped
        self.run_position = position
        self._coming: Iterator[RenderedBatch] = iter(())
        self._first = NOT_BEGUN  # the place of the next batch of `_coming`

    def _rendered(self, tickets: Iterator[Ticket]) -> Iterator[RenderedBatch]:
        now, _ = self.run_position()
        for epoch, number, _ in tickets:
            self.lane.turn((now, number))
            yield self.lane.shared(self.key, functools.partial(self._own, epoch, number))

    def _own(self, epoch: int, number: int) -> RenderedBatch:
        """Return a batch of the loader, which goes on as long as its batches are asked for one after the other."""
        if (epoch, number) != self._first:
            self._coming = self.loader.batches(epoch, number)
        self._first = epoch, number + 1
        return next(self._coming)


class SharedAnswers(TeacherAnswers):
    """The teacher's answers to a batch, kept or live, which the first run with this key asks for."""

    def __init__(self, lane: Lane, key: str, live: Callable[[Batch], Tensor], kept: Answering | None) -> None:
        self.lane, self.key, self.live, self.kept = lane, key, live, kept
        self.given = self._asked = 0

    @property
    def asked(self) -> int:
        return self._asked if self.kept is None else self.kept.asked

    def __call__(self, batch: Batch) -> Tensor:
        self.given += 1
        return self.lane.shared(self.key, functools.partial(self._own, batch))

    def _own(self, batch: Batch) -> Tensor:
        self._asked += 1
        return self.live(batch) if self.kept is None else self.kept(batch)

    def finish(self) -> None:
        if self.kept is not None:
            self.kept.finish()


def process_state() -> Callable[[], None]:
    """Return a function that puts back what runs change in their process: random numbers, and settings of torch."""
    numbers, precision, cudnn = random_state(), torch.get_float32_matmul_precision(), torch.backends.cudnn
    deterministic, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.deterministic, cudnn.benchmark

    def put_back() -> None:
        put_random_state(numbers)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        cudnn.deterministic, cudnn.benchmark = flags

    return put_back
