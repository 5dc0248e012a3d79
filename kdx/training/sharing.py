"""What a run may share with others that train at the same time in this process. By itself it shares nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # their imports take seconds
    from torch import Tensor

    from kdx.data.loaders import Loader, Position
    from kdx.training.answering import Answering, TeacherAnswers
    from kdx.training.interruption import Interruption
    from kdx.types import Batch

T = TypeVar("T")
About = Callable[[], Mapping[str, Any]]  # gives the plain data that something depends on: equal data, equal thing


class Sharing:
    """A run by itself; `kdx.training.lockstep.Lane` is one that shares.

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

    def batches(self, about: About, loader: Loader, position: Position) -> Loader:
        """Return a loader of the same training batches; `position` is that of the run, of which epochs may show the same."""
        return loader

    def answers(self, about: About, live: Callable[[Batch], Tensor], kept: Answering | None) -> TeacherAnswers | None:
        """Return the teacher's answers [M,B,K] in training: `kept` ones if any, else None, so that the step asks it."""
        return kept
