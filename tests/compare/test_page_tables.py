"""The tables, details and pictures of a page say what the runs say."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from fake import fake_run
from page_runs import EPOCHS, TAU, disagreeing, rich_run, sweep
from PIL import Image

from kdx.compare.comparison import compare
from kdx.compare.page.baseline_differences import baseline_differences
from kdx.compare.page.details import details
from kdx.compare.page.material import Material, gather
from kdx.compare.page.pictures import Album, disagreements, embedded
from kdx.compare.page.table import group_table, run_table, varying
from kdx.compare.page.writing import embedded as inside
from kdx.compare.runs import find_runs
from kdx.compare.tables import notes


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return gather(find_runs([sweep(tmp_path_factory.mktemp("runs"), seeds=2, epochs=12)]))


# Tables and details


def test_the_table_of_runs_lists_all_and_says_what_is_wrong(material: Material) -> None:
    table = run_table(material)
    assert len(table.rows) == len(material.runs) == 19
    states = {row.state for row in table.rows}
    assert states == {"finished", "running", "stopped", "damaged"}
    (damaged,) = (row for row in table.rows if row.state == "damaged")
    assert "metrics.json" in damaged.note
    assert all(len(row.cells) == len(table.columns) for row in table.rows)
    assert {TAU, EPOCHS, "resolution.student"} <= {column.key for column in table.columns if column.shown}


def test_groups_have_mean_deviation_and_the_paired_difference(material: Material) -> None:
    found = baseline_differences(material)
    table = group_table(material, found)
    (place,) = (i for i, column in enumerate(table.columns) if column.key == "test/student/accuracy")
    (row,) = (row for row in table.rows if row.label.startswith("px=4 T=4"))
    system = next(s for s in material.systems if s.short == row.label)
    baseline = next(s for s in material.systems if s.group.baseline == "scratch")
    mine, theirs = (np.array(s.values("test/student/accuracy")) for s in (system, baseline))
    cell = row.cells[place]
    assert cell.value == pytest.approx(mine.mean())
    assert cell.text == f"{mine.mean():.3f} ± {mine.std(ddof=1):.3f}"
    assert cell.under.startswith(f"+{(mine - theirs).mean():.4f} [")
    assert "scratch" in found.note and found.caveats


def test_better_and_worse_follow_the_metric(tmp_path: Path) -> None:
    for seed in range(4):
        step = 0.001 * seed
        up = {f"test/student/{what}": 0.5 + step for what in ("accuracy", "ece", "entropy")}
        down = {f"test/student/{what}": 0.2 - step for what in ("accuracy", "ece", "entropy")}
        fake_run(tmp_path / f"t{seed}", {"seed": seed}, up)
        fake_run(tmp_path / f"c{seed}", {"seed": seed, "baseline": "scratch"}, down)
    found = baseline_differences(gather(find_runs([tmp_path])))
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
        told = {path: v for path, v in data["shared"].items() if path not in entry["lacks"]} | entry["differing"]
        assert set(told) == set(run.flat_config)
        for path, value in run.flat_config.items():
            assert told[path] == (value if isinstance(value, str) else json.dumps(value))
        for name, value in zip(data["names"], entry["values"], strict=True):
            assert value == (pytest.approx(run.metrics[name], rel=1e-5) if name in run.metrics else None)


def test_settings_that_vary_are_those_that_differ(material: Material) -> None:
    found = varying(material.runs)
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


def test_images_of_disagreement_are_those_of_the_sheet(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "a")
    disagreeing(folder)
    (run,) = find_runs([folder])
    examples = Album().examples(run)
    assert [example["kind"] for example in examples] == ["student wrong, teacher right"] * 2 + ["both wrong"]
    for i, example in enumerate(examples):
        with Image.open(io.BytesIO(base64.b64decode(str(example["source"]).partition(",")[2]))) as tile:
            assert abs(int(np.asarray(tile.convert("L")).mean()) - 60 * (i + 1)) <= 2
    assert Album(room=10).examples(run) == []
    Image.new("RGB", (100, 100)).save(folder / "disagreement.png")  # of another version
    assert disagreements(run) == []
    (folder / "disagreement.json").write_text('{"examples": [{"label": 1}]}')
    assert disagreements(run) == []


def test_without_an_interval_no_sentence_counts_intervals(tmp_path: Path) -> None:
    for seeds, expected in ((1, False), (2, True)):
        root = tmp_path / str(seeds)
        for seed in range(seeds):
            metrics = {f"test/student/{what}": 0.5 + 0.1 * seed * seed for what in ("accuracy", "ece", "nll")}
            fake_run(root / f"t{seed}", {"seed": seed}, metrics)
            fake_run(root / f"c{seed}", {"seed": seed, "baseline": "scratch"})
        runs = find_runs([root])
        note = baseline_differences(gather(runs)).note
        text = " ".join(notes(compare(runs)))
        for words in (note, text):
            assert ("interval" in words.replace("(no interval): an interval needs", "")) == expected
            assert "difference" in words and "0 intervals" not in words


def test_an_album_is_full_at_some_point(tmp_path: Path) -> None:
    run = find_runs([rich_run(tmp_path / "a", {}, epochs=2)])[0]
    album = Album()
    assert [bool(album.of(run)) for _ in range(14)] == [True] * 12 + [False] * 2
    album = Album(room=500)
    assert album.of(run) == []
    (run.path / "views.png").unlink()
    Image.new("RGB", (1, 1)).save(run.path / "views.png", optimize=True)
    assert Album(room=500).of(run) and album.of(run) == []  # nothing is encoded after the first picture without room
