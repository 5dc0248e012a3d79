"""Slots are had by one process at a time, and are free when it has ended, however it ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kdx.run.slots import take


def test_each_name_is_taken_once_before_any_is_taken_twice(tmp_path: Path) -> None:
    taken = [take(["0", "1"], per_name=2, folder=tmp_path)[0].name for _ in range(4)]
    assert taken == ["0", "1", "0", "1"]
    assert take(["0", "1"], per_name=2, folder=tmp_path) == []


def test_several_slots_are_of_different_names_and_are_had_all_or_none(tmp_path: Path) -> None:
    (first,) = take(["0", "1"], folder=tmp_path)
    assert take(["0", "1"], number=2, folder=tmp_path) == []
    first.leave()
    assert [slot.name for slot in take(["0", "1"], number=2, folder=tmp_path)] == ["0", "1"]


def test_a_process_that_inherits_a_slot_has_it_until_it_is_killed(tmp_path: Path) -> None:
    (slot,) = take(["0"], folder=tmp_path)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[slot.lock])
    slot.leave()
    assert take(["0"], folder=tmp_path) == []
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    assert [slot.name for slot in take(["0"], folder=tmp_path)] == ["0"]
