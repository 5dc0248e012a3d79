"""The page: its data against independent computations, and bad input. In a browser: test_page_browser.py."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake import fake_run
from hypothesis import given, settings
from hypothesis import strategies as st
from page_runs import EPOCHS, TAU, rich_run, shifted, sweep
from PIL import Image

from kdx.report.groups import group_runs
from kdx.report.page import against as influences
from kdx.report.page import watch, write
from kdx.report.page.charts import COLOURS, DARK, look, name_of, rounded
from kdx.report.page.compared import compared
from kdx.report.page.curves import average, thin
from kdx.report.page.details import details
from kdx.report.page.material import Material, gather, per_epoch
from kdx.report.page.pictures import Album, embedded
from kdx.report.page.reliability import Diagram, diagrams_of, pooled
from kdx.report.page.scatter import non_dominated
from kdx.report.page.shift import severities, shifts_of
from kdx.report.page.table import group_table, run_table, varying
from kdx.report.page.words import direction, finite, ordered, short, titled
from kdx.report.page.writing import SECTIONS
from kdx.report.page.writing import embedded as inside
from kdx.report.runs import Run, find_runs

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return find_runs([sweep(tmp_path_factory.mktemp("runs"), seeds=2, epochs=12)])


@pytest.fixture(scope="module")
def material(runs: list[Run]) -> Material:
    return gather(runs)


def block(page: str, key: str) -> Any:
    """A data block of a page, read as a browser does: up to the first thing that could end the element."""
    found = re.search(rf'<script type="application/json" id="{key}">(.*?)</script', page, re.S)
    assert found
    return json.loads(found.group(1))


# Curves


def test_what_an_epoch_logged_is_averaged_and_epochs_count_from_one() -> None:
    points = [(0, 4, 1.0), (0, 9, 3.0), (1, 14, 5.0), (2, 19, float("nan")), (2, 24, float("inf"))]
    assert list(per_epoch(points)) == [(1, 2.0), (2, 5.0)]


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
@settings(max_examples=60)
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
    '{"diagrams": [{"split": "test", "who": "student", "count": [1, 2], "confidence": [1], "correct": [1, 1]}]}'])  # fmt: skip
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
    shown = influences.shown_at(system, "test/student/accuracy")
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


# Words and looks


def test_directions_and_words() -> None:
    assert direction("test/student/accuracy") == "more" and direction("test/student/ece_mass") == "less"
    assert direction("student/macs") == "less" and direction("test/student/entropy") == ""
    assert titled("test/student/entropy") == "entropy (student, test), nats"
    assert short("temperature.value=1 control=scratch") == "T=1 control=scratch"
    assert ordered(["val/student/ece", "seconds", "test/student/ece", "test/student/accuracy"]) == [
        "test/student/accuracy", "test/student/ece", "val/student/ece", "seconds",
    ]  # fmt: skip
    assert finite({"a": float("nan"), "b": True}, "a") is None and finite({"b": True}, "b") is None


def test_looks_differ_while_there_are_enough_and_every_colour_has_a_dark_one() -> None:
    looks = [look(i) for i in range(45)]
    assert len({(it.colour, it.dash) for it in looks}) == 45
    assert set(DARK) == set(COLOURS)


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
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
    assert min(contrast(colour, dark["raised"]) for colour in DARK.values()) >= 3
    # Sky blue and orange of Okabe and Ito are lighter than 3 on white; their symbols tell them apart.
    assert sum(contrast(colour, light["raised"]) < 3 for colour in DARK) <= 3


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
            for figure in chart.figures.values():
                go.Figure(figure)  # ValueError for a property that Plotly does not have
                assert figure["data"], chart.key
    assert len(keys) == 10


def test_without_finished_runs_nothing_is_drawn_that_needs_them(tmp_path: Path) -> None:
    rich_run(tmp_path / "a", {}, "going", epochs=6)
    material = gather(find_runs([tmp_path]))
    drawn = {chart.key for _, _, builders in SECTIONS for build in builders if (chart := build(material))}
    assert drawn == {"curves", "temperature-traces"}


# Tables and details


def test_the_table_of_runs_lists_all_and_says_what_is_wrong(material: Material) -> None:
    table = run_table(material)
    assert len(table.rows) == len(material.runs) == 19
    states = {row.state for row in table.rows}
    assert states == {"finished", "going", "stopped", "damaged"}
    (damaged,) = (row for row in table.rows if row.state == "damaged")
    assert "metrics.json" in damaged.note
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    assert {TAU, EPOCHS, "resolution.student"} <= {column.key for column in table.columns if column.shown}


def test_groups_have_mean_deviation_and_the_paired_difference(material: Material) -> None:
    found = compared(material)
    table = group_table(material, found)
    (place,) = (i for i, column in enumerate(table.columns) if column.key == "test/student/accuracy")
    (row,) = (row for row in table.rows if row.label.startswith("px=4 T=4"))
    system = next(s for s in material.systems if s.short == row.label)
    control = next(s for s in material.systems if s.group.control == "scratch")
    mine, theirs = (np.array(s.values("test/student/accuracy")) for s in (system, control))
    cell = row.cells[place]
    assert cell.value == pytest.approx(mine.mean())
    assert cell.text == f"{mine.mean():.3f} ± {mine.std(ddof=1):.3f}"
    assert cell.under.startswith(f"+{(mine - theirs).mean():.4f} [")
    assert "scratch" in found.note and found.remarks


def test_better_and_worse_follow_the_metric(tmp_path: Path) -> None:
    for seed in range(4):
        step = 0.001 * seed
        up = {f"test/student/{what}": 0.5 + step for what in ("accuracy", "ece", "entropy")}
        down = {f"test/student/{what}": 0.2 - step for what in ("accuracy", "ece", "entropy")}
        fake_run(tmp_path / f"t{seed}", {"seed": seed}, up)
        fake_run(tmp_path / f"c{seed}", {"seed": seed, "control": "scratch"}, down)
    found = compared(gather(find_runs([tmp_path])))
    marks = {metric.rpartition("/")[2]: mark for (_, metric), (_, mark) in found.differences.items()}
    assert {name: marks[name] for name in ("accuracy", "ece", "entropy")} == {
        "accuracy": "better",
        "ece": "worse",
        "entropy": "",
    }


def test_shared_and_own_settings_together_are_the_config(material: Material, tmp_path: Path) -> None:
    data = json.loads(inside(details(material, tmp_path / "page.html", 0)))
    assert not any(entry["pictures"] for entry in data["runs"])  # no room
    for run, entry in zip(material.runs, data["runs"], strict=True):
        told = {path: v for path, v in data["shared"].items() if path not in entry["lacks"]} | entry["own"]
        assert set(told) == set(run.flat_config)
        for path, value in run.flat_config.items():
            assert told[path] == (value if isinstance(value, str) else json.dumps(value))
        for name, value in zip(data["names"], entry["values"], strict=True):
            assert value == (pytest.approx(run.metrics[name], rel=1e-7) if name in run.metrics else None)


def test_settings_that_vary_are_those_that_differ(runs: list[Run]) -> None:
    found = varying(runs)
    assert found[:3] == ["resolution.student", TAU, EPOCHS] or set(found[:3]) == {"resolution.student", TAU, EPOCHS}
    assert "seed" not in found and "data.batch_size" not in found


# Pictures


def test_pictures_are_made_small_and_broken_ones_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (1800, 600), "red").save(tmp_path / "wide.png")
    found = embedded(tmp_path / "wide.png")
    assert found is not None and (found["width"], found["height"]) == (900, 300)
    assert str(found["source"]).startswith("data:image/png;base64,")
    noise = np.random.default_rng(0).integers(0, 255, (300, 900, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    assert str((embedded(tmp_path / "photo.png") or {})["source"]).startswith("data:image/jpeg;base64,")
    (tmp_path / "torn.png").write_bytes((tmp_path / "wide.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("<svg onload=alert(1)>")
    assert embedded(tmp_path / "torn.png") is None and embedded(tmp_path / "text.png") is None
    assert embedded(tmp_path / "none.png") is None


def test_an_album_is_full_at_some_point(tmp_path: Path) -> None:
    run = find_runs([rich_run(tmp_path / "a", {}, epochs=2)])[0]
    album = Album()
    assert [bool(album.of(run)) for _ in range(14)] == [True] * 12 + [False] * 2
    assert Album(room=10).of(run) == []


# The file


def test_data_in_a_page_cannot_end_its_element() -> None:
    hostile = {"a": "</script><script>alert(1)</script>", "b": "<!--", "c": "]]>&amp;\u2028"}
    text = inside(hostile)
    assert "<" not in text and ">" not in text and json.loads(text) == hostile


def test_a_page_holds_every_run_and_fetches_nothing(runs: list[Run], tmp_path: Path) -> None:
    path = write(runs, tmp_path / "deep" / "page.html", "A title & more")
    text = path.read_text()
    assert "<title>A title &amp; more</title>" in text
    assert len(block(text, "page-data")["runs"]) == len(runs)
    own = text.replace(Path(__import__("plotly").__file__).parent.joinpath("package_data/plotly.min.js").read_text(), "")
    assert len(own) < len(text) - 4 * MEGABYTE
    assert not re.search(r"(?:src|href)=\"(?!#|data:|\./)", own)
    assert "@import" not in own and 'http-equiv="refresh"' not in own
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', own)
    rules = dict(rule.split(" ", 1) for rule in html.unescape(policy).split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert re.fullmatch(r"('sha256-[\w+/]{43}=' ?){3}", rules["script-src"])
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_page_that_cannot_be_made_leaves_the_old_one(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("kdx.report.page.writing.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write([], path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_nothing_at_all_gets_a_page_with_the_remedy(tmp_path: Path) -> None:
    text = write([], tmp_path / "page.html").read_text()
    assert "No runs here yet" in text and "kdx-train" in text and len(text) < 100_000


def test_damaged_runs_alone_get_a_page_that_lists_them(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", state="damaged")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text("{")
    text = write(find_runs([tmp_path]), tmp_path / "page.html").read_text()
    assert "metrics.json is not whole" in text and "run.json is not whole" in text


def test_odd_values_in_a_run_do_no_harm(tmp_path: Path) -> None:
    for i, odd in enumerate((None, 3, "text", [1, "a", None], {"a": [{}]}, True)):
        folder = fake_run(
            tmp_path / str(i), {"resolution.student": odd, "temperature.value": odd, EPOCHS: odd, "control": None}
        )
        end = json.loads((folder / "metrics.json").read_text())
        end["provenance"] = dict.fromkeys(end["provenance"], odd)
        end["selection"], end["cost"], end["data"] = (
            {"rule": odd, "epoch": odd, "text": odd},
            {"protocol": odd},
            {"fingerprint": odd},
        )
        (folder / "metrics.json").write_text(json.dumps(end))
        for name in ("teacher.json", "reliability.json", "evaluations/a.json"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(odd))
    runs = find_runs([tmp_path])
    text = write(runs, tmp_path / "page.html").read_text()
    assert len(block(text, "page-data")["runs"]) == 6


def test_comparing_with_something_unknown_is_answered(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is nothing called 'nothing_like_it' to compare with"):
        write(runs, tmp_path / "page.html", against="nothing_like_it")


def test_hundreds_of_different_runs_stay_small(tmp_path: Path) -> None:
    first = rich_run(tmp_path / "0", {}, epochs=60)  # curves are thinned to fewer points
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 900, 3), np.uint8))
    start = json.loads((first / "run.json").read_text())
    for i in range(1, 200):
        folder = tmp_path / str(i)
        folder.mkdir()
        start["config"]["optimizer"]["lr"], start["config"]["temperature"]["value"] = 1e-4 * i, 1.0 + i % 10
        (folder / "run.json").write_text(json.dumps(start))
        for name in ("metrics.json", "metrics.csv", "reliability.json"):
            (folder / name).write_bytes((first / name).read_bytes())
        if i < 20:
            noise.save(folder / "views.png", compress_level=0)
    runs = find_runs([tmp_path])
    assert len(group_runs(runs)) == 200
    path = write(runs, tmp_path / "page.html")
    assert path.stat().st_size < 8 * MEGABYTE
    assert sum(bool(entry["pictures"]) for entry in block(path.read_text(), "page-data")["runs"]) >= 2


# Watching


class Enough(Exception):
    pass


def test_watching_writes_when_something_changed_and_only_then(tmp_path: Path) -> None:
    folder = rich_run(tmp_path / "runs" / "a", {}, "going", epochs=4)
    page, said, looks = tmp_path / "page.html", [], []

    def sleep(seconds: float) -> None:
        assert seconds == 5
        looks.append('data-refresh="5"' in page.read_text())
        if len(looks) == 2:
            with open(folder / "metrics.csv", "a") as file:
                file.write("9,9,1,,,,,,,,,\n")
        if len(looks) == 3:
            fake_run(tmp_path / "other")
            (folder / "metrics.json").write_text((tmp_path / "other" / "metrics.json").read_text())
        if len(looks) == 4:
            raise Enough

    with pytest.raises(Enough):
        watch([tmp_path / "runs"], page, seconds=5, tell=said.append, sleep=sleep)
    assert len(said) == 3 and said[0].endswith("1 runs, 1 going") and said[-1].endswith("1 runs, 0 going")
    assert looks == [True, True, True, False]  # a finished run does not load its page again
    assert 'http-equiv="refresh"' not in page.read_text()
