"""The figure of a sweep with its baseline shows the intervals that the comparison gives, and every seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake import fake_run

from kdx.compare.statistics import student_interval
from kdx.evidence.seed_pairs import METRICS, sweep_figure

LABELS, DISTILLED = (0.80, 0.82, 0.84), (0.90, 0.91, 0.95)


def sweep(folder: Path, seeds: int) -> Path:
    for seed in range(seeds):
        for baseline, values in (("scratch", LABELS), (None, DISTILLED)):
            numbers = {f"test/student/{metric}": values[seed] for metric in METRICS}
            fake_run(folder / f"{baseline}-{seed}", {"seed": seed, "baseline": baseline}, numbers)
    return folder


def test_the_figure_shows_every_seed_and_the_interval(tmp_path: Path) -> None:
    axes = sweep_figure(sweep(tmp_path / "sweep", 3), "A title").get_axes()
    assert len(axes) == 2 * len(METRICS)
    values, difference = axes[0], axes[len(METRICS)]
    dots = {tuple(line.get_ydata()) for line in values.lines if line.get_marker() == "o"}
    assert dots == {LABELS, DISTILLED}
    interval = student_interval([b - a for a, b in zip(LABELS, DISTILLED, strict=True)])
    assert any(list(line.get_xdata()) == pytest.approx([interval.low, interval.high]) for line in difference.lines[1:2])
    assert f"[{interval.low:+.3f}, {interval.high:+.3f}]".replace("-", "\N{MINUS SIGN}") in difference.get_title()


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No interval without two paired seeds"):
        sweep_figure(sweep(tmp_path / "sweep", 1), "A title")


def test_two_distilled_groups_are_refused(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "sweep", 2)
    for seed in range(2):
        fake_run(folder / f"hot-{seed}", {"seed": seed, "temperature.value": 20.0})
    with pytest.raises(ValueError, match=r"Expected 1 group with a baseline in .*, found 2"):
        sweep_figure(folder, "A title")
