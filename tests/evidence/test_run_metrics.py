"""Numbers are read from the place that their name says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdx.evidence.run_metrics import curve, value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run: two rows for epoch 1, of which the later counts, and columns that do not share rows."""
    rows = ["epoch,train/loss,val/kl,step", "0,3.0,,1", "0,,0.5,1", "1,2.0,,2", "1,1.5,,3", "1,,0.25,3"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "metrics.json").write_text(json.dumps({"metrics": {"test/kl": 0.125, "test/nan": float("nan")}}))
    return tmp_path


def test_names(folder: Path) -> None:
    assert value(folder, "test/kl") == 0.125
    assert value(folder, "train/loss@end") == 1.5
    assert value(folder, "train/loss@0") == 3.0
    assert value(folder, "val/kl@end") == 0.25
    assert curve(folder, "train/loss") == [(0, 3.0), (1, 1.5)]


@pytest.mark.parametrize("name", ["test/nan", "test/none", "train/none@end", "train/loss@7"])
def test_what_is_not_there_or_diverged_is_no_number(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is nan"):
        value(folder, name)
