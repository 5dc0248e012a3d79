"""Figures show the numbers that they are given, and names that can be read."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from kdx.compare.statistics import Region
from kdx.evidence.findings import ClaimComparison, Finding
from kdx.evidence.forest import REACH, VERDICTS, forest
from kdx.report.plots import Panel, against, patience, trajectories


def texts(drawing: Figure) -> list[str]:
    """All text in a figure that anyone can see."""
    drawing.savefig(io.BytesIO(), format="png")
    return [
        text.get_text() for axis in drawing.axes for text in [*axis.texts, *axis.get_yticklabels(), *axis.get_xticklabels()]
    ]


def test_against_draws_means_and_every_seed() -> None:
    panel = Panel("ECE", {1.0: [0.1, 0.2], 4.0: [0.3, 0.5]}, {"labels only": [0.6, 0.8]})
    drawing = against("Title", "temperature", [panel, panel])
    axis = drawing.axes[0]
    means = next(line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2)
    np.testing.assert_allclose(means.get_ydata(), [0.15, 0.4])
    dots = sorted(float(y) for line in axis.lines if line.get_linestyle() == "None" for y in line.get_ydata())
    np.testing.assert_allclose(dots, [0.1, 0.2, 0.3, 0.5])
    level = next(line for line in axis.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(level.get_ydata(), 0.7)
    assert {"1", "4", "labels only"} <= set(texts(drawing))


def test_patience_names_every_policy_at_its_end_without_overlap() -> None:
    lines = {
        name: {60: [0.3, 0.4], 600: [value, value + 0.001]} for name, value in {"a": 0.1, "b": 0.1001, "c": 0.1002}.items()
    }
    curves = {"a": [[(9, 1.0), (59, 0.5), (599, 0.1)], [(59, 0.7), (599, 0.1)]]}
    drawing = patience("Title", "KL", lines, curves)
    named = {text.get_text(): text.get_position()[1] for text in drawing.axes[0].texts}
    assert set(named) == {"a", "b", "c"}
    heights = sorted(named.values())
    assert min(np.diff(heights)) * drawing.axes[0].get_window_extent().height >= 10
    faint = next(line for line in drawing.axes[0].lines if line.get_alpha() == 0.35)
    np.testing.assert_allclose(faint.get_ydata(), [0.6, 0.1])  # at the epochs that all seeds have


def test_trajectories_draw_each_seed_and_the_mean() -> None:
    drawing = trajectories("Title", "temperature", {"from 3": [[(0, 3.0), (1, 4.0)], [(0, 3.0), (1, 6.0)]]})
    drawn = [tuple(line.get_ydata()) for line in drawing.axes[0].lines]
    assert drawn == [(3.0, 4.0), (3.0, 6.0), (3.0, 5.0)]
    assert "from 3" in texts(drawing)


@pytest.mark.parametrize(("shift", "expected"), [(1.0, "holds"), (0.0, "undecided"), (-1.0, "fails"), (1e9, "holds")])
def test_forest_puts_what_holds_right_of_the_line(shift: float, expected: str) -> None:
    values = {seed: shift + noise for seed, noise in enumerate([-0.2, 0.1, 0.0, 0.2, -0.1])}
    comparison = ClaimComparison("a − b", "test/student/ece", values, Region(low=0))
    missing = Finding("family", "never", "paper", "words", missing="it failed")
    drawing = forest([Finding("family", "my_claim", "paper", "words", (comparison,)), missing], "Title")
    assert {"family: my claim", expected, "ece of a − b > 0"} <= set(texts(drawing))
    assert not [text for text in texts(drawing) if "never" in text]
    bar = next(line for line in drawing.axes[0].lines if line.get_color() == VERDICTS[expected][0])
    left, right = bar.get_xdata()
    assert -REACH <= left <= right <= REACH
    assert {"holds": left > 0, "undecided": left < 0 < right, "fails": right < 0}[expected]
