"""What a run may share with others of its process, that train at the same time or one after the other. By itself, nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from kdx.config.identity import digest

if TYPE_CHECKING:  # their imports take seconds
    from torch import Tensor

    from kdx.data.loaders import Loader, Position
    from kdx.training.answering import Answering, TeacherAnswers
    from kdx.training.interruption import Interruption
    from kdx.types import Batch

T = TypeVar("T")
About = Callable[[], Mapping[str, Any]]  # gives the plain data that something depends on: equal data, equal thing


class Sharing:
    """A run by itself; `Successive` and `kdx.training.lockstep.Lane` share.

    Args:
        interruption: that of all runs of the process; None: each listens to signals itself.
    """

    def __init__(self, interruption: Interruption | None = None) -> None:
        self.interruption = interruption

    def clock(self) -> float:
        """Return the seconds that this run has worked since some moment."""
        return time.perf_counter()

    def once(self, name: str, about: About, make: Callable[[], T]) -> T:
        """Return what `make` returns, or has returned to another run for the same name and data."""
        return make()

    def for_teacher(self) -> Sharing:
        """Return what the training of this run's teacher shares."""
        return Sharing(self.interruption)

    def batches(self, about: About, loader: Loader, position: Position) -> Loader:
        """Return a loader of the same training batches; `position` is that of the run, of which epochs may show the same."""
        return loader

    def answers(self, about: About, live: Callable[[Batch], Tensor], kept: Answering | None) -> TeacherAnswers | None:
        """Return the teacher's answers [M,B,K] in training: `kept` ones if any, else None, so that the step asks it."""
        return kept


class Successive(Sharing):
    """Runs one after the other: what is made once is kept until a run needs another one of that name."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, tuple[str, Any]] = {}

    def once(self, name: str, about: About, make: Callable[[], T]) -> T:
        key = digest(about())
        if name not in self._made or self._made[name][0] != key:
            self._made.pop(name, None)  # its memory is free before the next one takes some
            self._made[name] = key, make()
        value: T = self._made[name][1]
        return value

    def for_teacher(self) -> Sharing:
        return self
