"""A file is whole or absent, and a full disk is told as such whatever a library makes of it."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdx.run.files import replacing


def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(OSError), replacing(file) as draft:
        draft.joinpath("no folder").write_text("new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    with replacing(file) as draft:
        draft.write_text("new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_told_whatever_a_library_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, kind in ((10**9, RuntimeError), (100, OSError)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        with pytest.raises(kind) as raised, replacing(tmp_path / "last.ckpt"):
            raise RuntimeError("unexpected pos 46464 vs 46360")
    assert raised.value.errno == errno.ENOSPC and raised.value.filename.endswith("last.ckpt")
