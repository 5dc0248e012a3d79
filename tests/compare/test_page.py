"""The page as a file: whole, small, safe, and up to date while it is watched. In a browser: test_page_browser.py."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake import fake_run
from page_runs import EPOCHS, rich_run, sweep
from PIL import Image

from kdx.compare.groups import group_runs
from kdx.compare.page import material, watch, write
from kdx.compare.page.writing import embedded as inside
from kdx.compare.runs import RunRecord, find_runs
from kdx.run import job
from kdx.run.sweep_folder import Plan, write_plan

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    return find_runs([sweep(tmp_path_factory.mktemp("runs"), seeds=2, epochs=12)])


def block(page: str, key: str) -> Any:
    """A data block of a page, read as a browser does: up to the first thing that could end the element."""
    found = re.search(rf'<script type="application/json" id="{key}">(.*?)</script', page, re.S)
    assert found
    return json.loads(found.group(1))


# The file


def test_data_in_a_page_cannot_end_its_element() -> None:
    hostile = {"a": "</script><script>alert(1)</script>", "b": "<!--", "c": "]]>&amp;\u2028"}
    text = inside(hostile)
    assert "<" not in text and ">" not in text and json.loads(text) == hostile


def test_a_page_holds_every_run_and_fetches_nothing(runs: list[RunRecord], tmp_path: Path) -> None:
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
    runs: list[RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("kdx.compare.page.writing.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write([], path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_nothing_at_all_gets_a_page_with_the_remedy(tmp_path: Path) -> None:
    text = write([], tmp_path / "page.html").read_text()
    assert "No runs found" in text and "kdx-train" in text and len(text) < 100_000


def test_damaged_runs_alone_get_a_page_that_lists_them(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", state="damaged")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text("{")
    text = write(find_runs([tmp_path]), tmp_path / "page.html").read_text()
    assert "metrics.json is incomplete or invalid" in text and "run.json is incomplete or invalid" in text


def test_odd_values_in_a_run_do_no_harm(tmp_path: Path) -> None:
    for i, odd in enumerate((None, 3, "text", [1, "a", None], {"a": [{}]}, True)):
        folder = fake_run(
            tmp_path / str(i), {"resolution.student": odd, "temperature.value": odd, EPOCHS: odd, "baseline": None}
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


def test_comparing_with_something_unknown_is_answered(runs: list[RunRecord], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No run, group or baseline named 'nothing_like_it'"):
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
    folder = rich_run(tmp_path / "runs" / "a", {}, "running", epochs=4)
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
        watch([tmp_path / "runs"], page, seconds=5, report=said.append, sleep=sleep)
    assert len(said) == 3 and said[0].endswith("1 runs, 1 running") and said[-1].endswith("1 runs, 0 running")
    assert looks == [True, True, True, False]  # a finished run does not load its page again
    assert 'http-equiv="refresh"' not in page.read_text()


def test_a_big_sweep_shows_its_baselines_and_its_best_groups_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        lr, seed = divmod(i, 2)
        metrics = {"val/student/accuracy": 0.5 + 0.05 * lr, "test/student/accuracy": 0.9 - 0.05 * lr}  # val chooses, not test
        rich_run(tmp_path / f"{i}", {"optimizer.lr": 0.001 * (1 + lr), "seed": seed}, epochs=2, metrics=metrics)
    for seed in range(2):
        rich_run(tmp_path / f"scratch{seed}", {"baseline": "scratch", "seed": seed}, epochs=2)
    monkeypatch.setattr(material, "MOST_ROWS", 3)
    monkeypatch.setattr(material, "MOST_RUNS", 4)
    found = material.gather(find_runs([tmp_path]))
    assert [system.group.baseline or system.mean("val/student/accuracy") for system in found.rows] == ["scratch", 0.75, 0.7]
    assert [run.seed for run in found.listed] == [0, 0, 0, 1]
    text = write(found.runs, tmp_path / "page.html").read_text()
    assert "Shown are 3 of 7 groups and 4 of 14 runs (baselines, and the best by val/student/accuracy)" in text
    assert text.count('<tr data-id="run-') == 4 and text.count('<tr data-id="group-') == 3
    monkeypatch.setattr(material, "MOST_ROWS", 200)
    monkeypatch.setattr(material, "MOST_GROUPS", 3)
    found = material.gather(found.runs)
    drawn = [system.group.baseline or system.mean("val/student/accuracy") for system in found.drawn]
    assert drawn == [0.7, 0.75, "scratch"] and len(found.rows) == 7  # in the order of the rows
    assert "4 more groups are not" in found.left_out


def test_a_sweep_that_goes_on_is_shown_with_its_failed_jobs_and_the_page_comes_back(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    write_plan(root, Plan(("kdx-train",), str(tmp_path), {f"{i}-run": (f"seed={i}", "hydra.x=1") for i in range(4)}, 1))
    fake_run(root / "0-run")
    job.fail(fake_run(root / "1-run", {"seed": 1}, state="running"), ValueError("loss is <nan>"))
    (root / "1-run" / job.LOCK).touch()
    job.fail(root / "2-run", ValueError("invalid config"))  # it did not come as far as to be a run
    runs = find_runs([root])
    assert [(run.state, run.problem) for run in runs] == [("finished", ""), ("failed", "loss is <nan>")]
    text = write(runs, tmp_path / "page.html", refresh=5).read_text()
    assert "<p>Sweep mine: 1 of 4 jobs finished, 2 failed, 1 pending.</p>" in text and '<progress max="4" value="1"' in text
    assert "1-run (seed=1): " in text and "loss is &lt;nan&gt;" in text and "2-run (seed=2): " in text
    assert 'data-refresh="5"' in text  # between two jobs, when none is running
    (root / "canceled").touch()
    assert "data-refresh" not in write(runs, tmp_path / "page.html", refresh=5).read_text()
