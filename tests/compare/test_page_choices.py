"""What val chooses in a sweep, what each setting explains, and the lines of the teacher, against independent computations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake import fake_run
from page_runs import PX, TAU
from scipy import stats

from kdx.compare.comparison import Cell
from kdx.compare.page import choices, factors, influences
from kdx.compare.page.charts import log_axis, ticks
from kdx.compare.page.material import Material, gather
from kdx.compare.runs import find_runs

LR, WIDTH = "optimizer.lr", "optimizer.weight_decay"


def runs_of(
    folder: Path, table: dict[tuple[Any, ...], list[float]], keys: tuple[str, ...] = (TAU,), test: float = 0.5
) -> Material:
    """A group per setting, a run per accuracy on val; ECE on val is 1 less accuracy, and test says the opposite."""
    for number, (setting, accuracies) in enumerate(table.items()):
        for seed, accuracy in enumerate(accuracies):
            metrics = {"val/student/accuracy": accuracy, "val/student/ece": 1 - accuracy, "val/student/nll": None}
            metrics |= {"test/student/accuracy": test - accuracy / 2, "test/student/ece": 0.1, "test/teacher/accuracy": 0.96}
            fake_run(folder / f"{number}-{seed}", {**dict(zip(keys, setting, strict=True)), "seed": seed}, metrics)
    return gather(find_runs([folder]))


def test_val_chooses_and_the_chosen_value_has_a_number_on_test(tmp_path: Path) -> None:
    values = {(1.0,): [0.70, 0.71, 0.73], (4.0,): [0.80, 0.82, 0.81], (8.0,): [0.79, 0.83, 0.81]}
    chart = choices.temperature(runs_of(tmp_path, values))
    assert chart is not None and chart.starts == ["0", "1"]
    dots, mean, star = chart.figures["0"]["data"]
    assert sorted(zip(dots["x"], dots["y"], strict=True)) == sorted((t, v) for (t,), of_t in values.items() for v in of_t)
    assert star["x"] == [4.0] and star["y"] == pytest.approx([0.81])
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values[4.0,]), scale=stats.sem(values[4.0,]))
    assert mean["error_y"]["array"][1] == pytest.approx((high - low) / 2)
    first, second = chart.lead
    assert first == (
        f"Accuracy: val prefers T = 4 (0.810 [{low:.3f}, {high:.3f}], n = 3), not clearly better than 8. "
        f"On test the chosen one has {np.mean([0.5 - v / 2 for v in values[4.0,]]):.4f} ± 0.0050."
    )
    assert second.startswith("ECE: val prefers T = 4 (0.190")


def test_a_choice_is_clear_if_every_paired_interval_excludes_zero(tmp_path: Path) -> None:
    noise = np.array([0.0, 0.1, 0.2])  # of the seed; paired differences have none
    table = {(t,): (0.5 + gain + noise).tolist() for t, gain in ((1.0, 0.0), (4.0, 0.03), (8.0, 0.01))}
    table[1.0,][0] += 0.001
    table[8.0,][0] += 0.001
    chart = choices.temperature(runs_of(tmp_path, table))
    assert chart is not None and "clearly better than every other value" in chart.lead[0]


def test_one_seed_has_no_interval_and_one_value_no_choice(tmp_path: Path) -> None:
    chart = choices.temperature(runs_of(tmp_path / "a", {(1.0,): [0.7], (4.0,): [0.8]}))
    assert chart is not None and "(0.800, n = 1); whether it is clearly better needs at least two seeds" in chart.lead[0]
    assert chart.figures["0"]["data"][1]["error_y"]["array"] == [0, 0]
    assert choices.temperature(runs_of(tmp_path / "b", {(1.0,): [0.7, 0.8]})) is None
    assert choices.resolution(gather(find_runs([tmp_path / "a"]))) is None


def test_many_values_stay_a_short_sentence_and_few_dots(tmp_path: Path) -> None:
    cells = {float(t): Cell({seed: 0.5 + seed / 10 for seed in range(4)}, 0.65 - t / 1e6, 0.1) for t in range(1, 202)}
    choice = choices.Choice(cells, 1.0, list(cells)[1:], True, None)
    assert choices.sentence(choice, "accuracy", "T", "").endswith("not clearly better than 2, 3, 4, 5, 6, 7 and 194 more.")
    assert [len(line["x"]) for line in choices.drawing(choice, "accuracy", "T")["data"]] == [0, 201, 1]


def test_the_smallest_resolution_that_is_not_clearly_worse_is_named(tmp_path: Path) -> None:
    table = {(2,): [0.50, 0.51, 0.52], (4,): [0.78, 0.83, 0.80], (8,): [0.81, 0.82, 0.81]}
    chart = choices.resolution(runs_of(tmp_path, table, (PX,)))
    assert chart is not None
    assert "student resolution = 8 px" in chart.lead[0] and "not clearly better than 4 px" in chart.lead[0]
    assert "the smallest that is not clearly worse is 4 px" in chart.lead[0]


def test_of_several_families_the_one_with_the_best_on_val_is_shown(tmp_path: Path) -> None:
    table = {(t, lr): [0.5 + 0.1 * lr + 0.01 * t + s / 1000 for s in range(2)] for t in (1.0, 4.0) for lr in (1.0, 2.0)}
    chart = choices.temperature(runs_of(tmp_path, table, (TAU, LR)))
    assert chart is not None and chart.note.endswith("Group: lr=2.")
    assert chart.figures["0"]["data"][2]["y"] == pytest.approx([0.7405])


def test_shares_are_those_of_an_analysis_of_variance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {
        (t, lr): (0.5 + 0.02 * t + 0.3 * (lr == 2.0) * (t == 4.0) + 0.01 * rng.standard_normal(3)).tolist()
        for t in (1.0, 4.0, 8.0)
        for lr in (1.0, 2.0)
    }
    chart = factors.importance(runs_of(tmp_path, table, (TAU, LR)))
    assert chart is not None and "n = 18 runs" in chart.note
    bars, *lines = chart.figures["0"]["data"]
    whole = np.concatenate(list(table.values()))
    total = ((whole - whole.mean()) ** 2).sum()
    for place, levels in ((0, (1.0, 4.0, 8.0)), (1, (1.0, 2.0))):
        means = [np.mean([values for key, values in table.items() if key[place] == level]) for level in levels]
        between = sum(18 / len(levels) * (mean - whole.mean()) ** 2 for mean in means)
        at = bars["text"].index(("T", "lr")[place])
        assert bars["x"][at] == pytest.approx(between / total)
        assert lines[at]["x"] == pytest.approx([(len(levels) - 1) / 17] * 2)
    assert factors.parallel(runs_of(tmp_path / "none", {(1.0,): [0.5]})) is None


def test_a_setting_without_effect_explains_what_the_line_says() -> None:
    rng = np.random.default_rng(1)
    levels = [str(i % 3) for i in range(12)]
    shares = [factors.share(levels, rng.standard_normal(12).tolist()) for _ in range(400)]
    assert np.mean(shares) == pytest.approx(2 / 11, abs=0.03)


def test_parallel_lines_pass_through_what_each_group_has(tmp_path: Path) -> None:
    table = {(t, lr, w): [0.5 + 0.01 * t + 0.1 * lr + w] for t in (1.0, 10.0) for lr in (1.0, 2.0) for w in (0.0, 0.25)}
    chart = factors.parallel(runs_of(tmp_path, table, (TAU, LR, WIDTH)))
    assert chart is not None and "the best by accuracy on val, 1 of 8" in chart.note
    others, best = chart.figures["0"]["data"]
    assert chart.figures["0"]["layout"]["xaxis"]["ticktext"] == ["T", "lr", "weight_decay", "accuracy, val", "ECE, val"]
    assert best["y"][:4] == [1, 1, 1, 1] and best["y"][4:] == [0, None]  # ECE is least
    assert others["y"].count(None) == 7 and set(others["y"][0::6]) == {0, 1}
    assert factors.parallel(runs_of(tmp_path / "two", {(1.0, 1.0): [0.5], (4.0, 2.0): [0.6]}, (TAU, LR))) is None


def test_every_chart_of_a_setting_has_the_level_of_its_teacher(tmp_path: Path) -> None:
    chart = influences.temperature(runs_of(tmp_path / "a", {(1.0,): [0.5], (4.0,): [0.6], (9.0,): [0.7]}))
    assert chart is not None and chart.starts == ["0", "1"]
    (level,) = (line for line in chart.figures["0"]["data"] if line.get("name") == "teacher")
    assert (level["x"], level["y"]) == ([1.0, 9.0], [0.96, 0.96])
    untaught = gather(find_runs([fake_run(tmp_path / "b" / str(px), {PX: px, "baseline": "scratch"}).parent for px in (4, 8)]))
    chart = influences.resolution(untaught)
    assert chart is not None and all(line.get("name") != "teacher" for line in chart.figures["0"]["data"])


def test_ticks_never_touch_and_equal_costs_have_a_linear_axis() -> None:
    axis = ticks([1, 1.02, 1.5, 2, 3, 10, 10.5, 11, 12])
    kept = np.log(axis["tickvals"])
    assert np.diff(kept).min() >= 0.09 * np.log(12) and axis["ticktext"][0] == "1"
    assert ticks([4.0])["tickvals"] == [4.0]
    assert log_axis([77754.0] * 3) == {"nticks": 5, "range": [0.5 * 77754, 1.5 * 77754]}
    assert "type" not in log_axis([100, 999]) and log_axis([100, 1000])["type"] == "log"
