"""What several tests of training share."""

from __future__ import annotations

import pytest
from torch import Tensor

from kdx.teachers.teacher import OnlineTeacher


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that teachers saw."""
    seen: list[int] = []
    original = OnlineTeacher.logits

    def logits(self: OnlineTeacher, images: Tensor) -> Tensor:
        seen.append(len(images))
        return original(self, images)

    monkeypatch.setattr(OnlineTeacher, "logits", logits)
    return seen
