"""Which of two values is better is what the runs say; a table answers for costs and for runs of an older kdx."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake import fake_run

from kdx.compare.comparison import Comparison, compare
from kdx.compare.metric_names import direction, directions
from kdx.compare.page.baseline_differences import baseline_differences
from kdx.compare.page.material import gather
from kdx.compare.runs import RunRecord, find_runs
from kdx.compare.tables import lines, ordered
from kdx.metrics.selection import directions as directions_of_run

MARGIN = "test/student/margin"


def runs(folder: Path, higher_is_better: bool | None) -> list[RunRecord]:
    """Three seeds of a treatment whose margin is 0.1 above that of its baseline, and what they say of it."""
    for seed in range(3):
        for name, config, margin in (("kd", {}, 0.5), ("scratch", {"baseline": "scratch"}, 0.4)):
            path = folder / f"{name}-{seed}"
            fake_run(
                path, {**config, "seed": seed, "metrics": {"margin": {}}}, {MARGIN: margin + seed / 1000 + 0.001 * len(name)}
            )
            report = json.loads((path / "metrics.json").read_text())
            report["higher_is_better"] = {"accuracy": True, "margin": higher_is_better}
            report["metrics"][MARGIN] += 0.0001 * seed * (name == "kd")
            (path / "metrics.json").write_text(json.dumps(report))
    return find_runs([folder])


def best(comparison: Comparison) -> list[str]:
    at = comparison.metrics.index(MARGIN)
    return [line.head for line in lines(comparison) if line.best[at]]


@pytest.mark.parametrize(
    ("higher_is_better", "winner", "word", "first"),
    [(True, True, "better", 0.5), (False, False, "worse", 0.4), (None, False, "", 0.5)],
)
def test_an_added_metric_is_compared_by_default_in_the_direction_its_runs_say(
    tmp_path: Path, higher_is_better: bool | None, winner: bool, word: str, first: float
) -> None:
    found = runs(tmp_path, higher_is_better)
    comparison = compare(found)
    assert MARGIN in comparison.metrics
    assert bool(best(comparison)) is winner
    assert ordered(comparison, MARGIN).rows[0].cells[MARGIN].mean == pytest.approx(first, abs=0.02)
    [(text, said)] = [pair for (_, metric), pair in baseline_differences(gather(found)).differences.items() if metric == MARGIN]
    assert text.startswith("+0.09") and said == word


def test_runs_that_contradict_each_other_have_no_direction() -> None:
    merged = directions([{"mine": True, "accuracy": True}, {"mine": False, "accuracy": True}, {"mine": True}])
    assert merged == {"mine": None, "accuracy": True}
    assert direction("test/student/mine", merged) == ""


def test_the_table_for_older_runs_says_what_the_classes_say() -> None:
    for name, higher_is_better in directions_of_run({}).items():
        assert direction(f"test/student/{name}") == {True: "more", False: "less", None: ""}[higher_is_better], name
