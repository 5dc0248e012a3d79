"""What charts are drawn from, against independent computations; every figure is one that Plotly knows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fake import fake_run
from hypothesis import given, settings
from hypothesis import strategies as st
from page_runs import TAU, rich_run, shifted, study, sweep

from kdx.compare.metric_names import direction, finite, ordered, short, titled
from kdx.compare.page import influences, search
from kdx.compare.page.charts import COLORS, DARK, figure, look, name_of, rounded, trace
from kdx.compare.page.curves import average, temperatures, thin, training
from kdx.compare.page.material import Material, gather, per_epoch
from kdx.compare.page.reliability import Diagram, diagrams_of, pooled
from kdx.compare.page.scatter import non_dominated
from kdx.compare.page.shift import severities, shifts_of
from kdx.compare.page.writing import SECTIONS
from kdx.compare.runs import find_runs


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return gather(find_runs([sweep(tmp_path_factory.mktemp("runs"), seeds=2, epochs=12)]))


# Curves


def test_what_an_epoch_logged_is_averaged_and_epochs_count_as_in_the_file() -> None:
    points = [(1, 4, 1.0), (1, 9, 3.0), (2, 14, 5.0), (3, 19, float("nan")), (3, 24, float("inf"))]
    assert list(per_epoch(points)) == [(1, 2.0), (2, 5.0)]


def test_a_run_resumed_in_another_folder_is_one_curve(tmp_path: Path) -> None:
    whole = rich_run(tmp_path / "whole", {"seed": 1}, epochs=8)
    first = rich_run(tmp_path / "first", {"seed": 1}, "stopped", epochs=8)  # has 4 epochs
    head, *rows = (whole / "metrics.csv").read_text().splitlines()
    (first / "metrics.csv").write_text("\n".join([head, *rows[:8]]) + "\n")
    second = fake_run(tmp_path / "second", {"seed": 1, "ckpt_path": "/elsewhere/first/checkpoints/last.ckpt"})
    (second / "metrics.csv").write_text("\n".join([head, *rows[6:]]) + "\n")  # from epoch 4 on
    material = gather(find_runs([first, second]))
    assert material.curves[str(second)] == gather(find_runs([whole])).curves[str(whole)]
    chart = training(material)
    assert chart is not None and "unfinished" not in chart.note
    assert [len(line["x"]) for line in chart.figures["0"]["data"]] == [8]


def test_a_temperature_that_stays_is_not_drawn_over_epochs(tmp_path: Path) -> None:
    for seed, tau in enumerate((1.0, 4.0)):
        folder = rich_run(tmp_path / str(seed), {TAU: tau, "seed": seed}, epochs=3)
        (folder / "metrics.csv").write_text(f"epoch,step,train/temperature\n1,4,{tau}\n2,9,{tau}\n")
    assert temperatures(gather(find_runs([tmp_path]))) is None
    (folder / "metrics.csv").write_text("epoch,step,train/temperature\n1,4,4.0\n2,9,3.0\n")
    assert temperatures(gather(find_runs([tmp_path]))) is not None


def test_a_band_is_the_deviation_over_seeds_at_the_epochs_that_all_have() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 7))
    curves = [[(epoch, float(v)) for epoch, v in enumerate(row, 1)] for row in values]
    curves[0] = curves[0][:-2]  # one seed was stopped
    epochs, mean, spread = average(curves)
    assert epochs.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(mean, np.mean(values[:, :5], 0))
    np.testing.assert_allclose(spread**2, (np.mean(values[:, :5] ** 2, 0) - np.mean(values[:, :5], 0) ** 2) * 5 / 4)


def test_one_seed_has_no_band_and_none_has_no_line() -> None:
    assert average([[(1, 2.0), (2, 3.0)]])[2].tolist() == [0.0, 0.0]
    assert average([])[0].size == 0
    assert average([[(1, 2.0)], [(2, 3.0)]])[0].size == 0


@given(st.integers(1, 2000), st.integers(2, 200))
@settings(max_examples=60, deadline=None)
def test_thinned_curves_keep_their_ends_and_their_order(count: int, most: int) -> None:
    kept = thin(count, most)
    assert len(kept) == min(count, most) or (len(kept) <= most and count > most)
    assert kept[0] == 0 and kept[-1] == count - 1 and kept == sorted(set(kept))
    gaps = np.diff(kept)
    assert count <= most or gaps.max() - gaps.min() <= 1


# Points


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=15))
def test_the_front_is_what_a_sweep_over_costs_finds(points: list[tuple[int, int]]) -> None:
    best, front = -1, set()
    for cost in sorted({cost for cost, _ in points}):  # from cheap to dear: only what gains more than all before
        gain = max(gain for c, gain in points if c == cost)
        if gain > best:
            best = gain
            front.add((cost, gain))
    assert {points[i] for i in non_dominated([(float(c), float(g)) for c, g in points])} == front


def test_pooled_bins_give_the_calibration_error_of_all_examples_together() -> None:
    rng = np.random.default_rng(1)
    diagrams, confidences, rights = [], [], []
    for _ in range(3):
        confidence = rng.uniform(0.1, 1.0, 400)
        right = (rng.random(400) < confidence**2).astype(float)
        places = np.minimum((confidence * 15).astype(int), 14)
        sums = [np.bincount(places, weights, 15) for weights in (np.ones(400), confidence, right)]
        diagrams.append(Diagram("test", "student", 4, *sums))
        confidences.append(confidence)
        rights.append(right)
    (joined,) = pooled([*diagrams, Diagram("val", "student", 4, *sums)], "test")
    confidence, right = np.concatenate(confidences), np.concatenate(rights)
    places = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1])
    parts = [abs(confidence[places == i].mean() - right[places == i].mean()) * np.mean(places == i) for i in set(places)]
    assert joined.runs == 3
    assert joined.ece == pytest.approx(sum(parts), abs=1e-12)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"diagrams": [{"split": "test"}]}', '{"diagrams": 3}',
    '{"diagrams": [{"split": "test", "network": "student", "count": [1,2], "confidence": [1], "correct":[1,1]}]}'])  # fmt: skip
def test_a_damaged_reliability_file_is_passed_over(tmp_path: Path, text: str) -> None:
    folder = fake_run(tmp_path / "a")
    (folder / "reliability.json").write_text(text)
    (run,) = find_runs([folder])
    assert diagrams_of(run) == []


def test_lines_join_groups_that_differ_in_nothing_but_x(material: Material) -> None:
    joined = influences.families(material.systems, ("temperature",))
    taus = [[system.group.runs[0].flat_config.get(TAU) for system in members] for members in joined]
    assert sorted(taus, key=len)[-1] == [1.0, 4.0, 10.0]
    assert sum(len(members) for members in joined) == len(material.systems)


def test_a_student_shown_other_resolutions_has_its_own_among_them(material: Material) -> None:
    (system,) = (s for s in material.systems if s.group.runs[0].flat_config.get(TAU) == 4.0)
    shown = influences.metric_by_resolution(system, "test/student/accuracy")
    assert list(shown) == [4.0, 6.0, 8.0]
    assert shown[4.0] == system.mean("test/student/accuracy")
    assert shown[8.0] == pytest.approx(shown[4.0] - 0.08)  # the law of page_runs


def test_severities_are_means_over_runs_from_the_clean_data_on(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "a")
    shifted(folder)
    (folder / "evaluations" / "torn.json").write_text('{"shift": [')
    (run,) = find_runs([folder])
    found = shifts_of(run)
    assert sorted(found) == ["blur", "noise"]
    worse = {severity: {name: v - 0.2 for name, v in metrics.items()} for severity, metrics in found["blur"].items()}
    line = severities([found["blur"], worse], "student", "accuracy")
    assert line == pytest.approx({0.0: 0.8, 1.0: 0.7, 3.0: 0.5, 5.0: 0.3})
    assert severities([found["blur"]], "peer", "accuracy") == {}
    own = json.loads((folder / "evaluations" / "shift.json").read_text())
    other = own | {"data": {"name": "imagefolder", "root": "there/my photos"}, "split": "val"}
    (folder / "evaluations" / "z.json").write_text(json.dumps(other))
    (run,) = find_runs([folder])
    again = shifts_of(run)  # of other data, which are not mixed with the run's own
    assert again["blur"] == found["blur"] and "blur on imagefolder my photos, val" in again


# Words and looks


def test_directions_and_words() -> None:
    assert direction("test/student/accuracy") == "more" and direction("test/student/ece_mass") == "less"
    assert direction("student/macs") == "less" and direction("test/student/entropy") == ""
    assert titled("test/student/entropy") == "entropy (student, test), nats"
    assert short("temperature.value=1 baseline=scratch") == "T=1 baseline=scratch"
    assert ordered(["val/student/ece", "seconds", "test/student/ece", "test/student/accuracy"]) == [
        "test/student/accuracy", "test/student/ece", "val/student/ece", "seconds",
    ]  # fmt: skip
    assert finite({"a": float("nan"), "b": True}, "a") is None and finite({"b": True}, "b") is None


def test_looks_differ_while_there_are_enough_and_every_color_has_a_dark_one() -> None:
    looks = [look(i) for i in range(45)]
    assert len({(it.color, it.dash) for it in looks}) == 45
    assert set(DARK) == set(COLORS)


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two colors."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_and_lines_stand_out_from_the_page_in_both_themes() -> None:
    style = (Path(influences.__file__).parent / "assets" / "page.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in style.split('[data-theme="dark"]')[:2])
    for theme in (light, dark):
        for ink in ("ink", "soft", "accent", "bad", "good"):
            for paper in ("paper", "raised", "faint"):
                assert contrast(theme[ink], theme[paper]) >= 4.5, (ink, paper)
    assert min(contrast(color, dark["raised"]) for color in DARK.values()) >= 3
    # Sky blue and orange of Okabe and Ito are lighter than 3 on white; their symbols tell them apart.
    assert sum(contrast(color, light["raised"]) < 3 for color in DARK) <= 3


def test_names_cannot_bring_markup_into_plotly_and_json_has_no_nan() -> None:
    assert name_of("<b>a</b> & b") == "&lt;b&gt;a&lt;/b&gt; &amp; b"
    assert rounded({"a": [1.23456789, float("nan")], "b": None, "c": "x"}) == {"a": [1.2346, None], "c": "x"}


# Figures, as plotly.py reads them


def test_every_figure_is_one_that_plotly_knows(material: Material) -> None:
    import plotly.graph_objects as go

    keys = set()
    for _, _, builders in SECTIONS:
        for build in builders:
            chart = build(material)
            assert chart is not None, build
            keys.add(chart.key)
            expected = int(np.prod([len(choices) for _, choices in chart.selects])) if chart.selects else 1
            assert len(chart.figures) == expected, chart.key
            for drawn in chart.figures.values():
                go.Figure(drawn)  # ValueError for a property that Plotly does not have
                assert drawn["data"], chart.key
    assert len(keys) == 17


def test_a_search_is_drawn_from_its_file_and_from_nothing_else(tmp_path: Path) -> None:
    study(fake_run(tmp_path / "0-run").parent)
    material = gather(find_runs([tmp_path]))
    history = search.history(material)
    assert history is not None
    line, finished, pruned = history.figures["0"]["data"]
    assert (line["y"], finished["y"], pruned["x"], pruned["y"]) == ([0.5, 0.75], [0.5, 0.75], [1], [0.25])
    assert history.figures["1"]["data"][0]["y"] == [0.2, 0.2]  # the smallest so far
    assert "<b>" not in json.dumps([history.as_data(), search.front(material).as_data()])
    assert [len(part["x"]) for part in search.front(material).figures["0"]["data"]] == [0, 2]
    for content in (
        "{",
        "[]",
        '{"objectives": [], "trials": 3}',
        '{"objectives": {}, "trials": [3], "best": [], "importances": {}}',
    ):
        (tmp_path / "study.json").write_text(content)
        assert search.history(gather(find_runs([tmp_path]))) is None


def test_without_finished_runs_nothing_is_drawn_that_needs_them(tmp_path: Path) -> None:
    rich_run(tmp_path / "a", {}, "running", epochs=6)
    material = gather(find_runs([tmp_path]))
    drawn = {chart.key for _, _, builders in SECTIONS for build in builders if (chart := build(material))}
    assert drawn == {"curves", "temperature-traces"}


def test_diagrams_of_version_0_1_are_read(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "a")
    bins = {"count": [1, 2], "confidence": [0.4, 1.8], "correct": [0, 2]}
    (folder / "reliability.json").write_text(json.dumps({"diagrams": [{"split": "test", "who": "student", **bins}]}))
    (diagram,) = diagrams_of(find_runs([folder])[0])
    assert diagram.network == "student" and diagram.ece == pytest.approx(0.2)


def test_an_axis_on_which_all_points_are_equal_stays_near_them() -> None:
    """Plotly would show an ECE of 0.02 from -0.98 to 1.02."""
    level = [trace("markers", [(1, 0.02), (2, 0.02)]), trace("lines", [(1, 0.02), (3, 0.02)])]
    layout = figure(level, "T", "ECE")["layout"]
    assert layout["yaxis"]["range"] == pytest.approx([0.018, 0.022]) and "range" not in layout["xaxis"]
    spread = trace("markers", [(1, 0.02)], error_y={"array": [0.01]})
    assert "range" not in figure([spread], "T", "ECE")["layout"]["yaxis"]
    assert figure(level, "T", "ECE", yaxis={"range": [0, 1]})["layout"]["yaxis"]["range"] == [0, 1]
