"""Runs are found wherever they lie, each once, and whatever is wrong with one of them is said of it alone."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from fake import METRICS, fake_run

from kdx.compare import records, runs
from kdx.compare.index import FILE
from kdx.compare.runs import find_runs, read_curves


def names(found: list[runs.RunRecord]) -> list[str]:
    return [run.path.name for run in found]


def test_a_finished_run_says_what_it_was_asked_and_what_it_found(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", {"temperature.value": 2.0, "seed": 3}, {"test/student/accuracy": 0.5}, group="s")
    (run,) = find_runs([tmp_path])
    assert (run.state, run.problem, run.name, run.seed, run.baseline, run.group) == (
        "finished",
        "",
        "cqkd_digits",
        3,
        None,
        "s",
    )
    assert run.metrics == {**METRICS, "test/student/accuracy": 0.5}
    assert run.last == {"val/student/accuracy": 0.9, "val/student/nll": 0.3}
    assert run.flat_config["temperature.value"] == 2.0 and run.flat_config["optimizer.betas"] == [0.9, 0.999]
    assert run.flat_config["mixing"] is None and run.selection["rule"] == "best_val" and run.data["fingerprint"] == "d1"
    assert run.cost["protocol"] and run.provenance["versions"]["torch"] == "2.15.0" and run.started == "2026-11-22T18:25:03"


def test_an_older_run_is_read_from_its_yaml(tmp_path: Path) -> None:
    fake_run(tmp_path / "new" / "a", {"seed": 1})
    fake_run(tmp_path / "sweep" / "a", {"seed": 1}, old=True)
    (tmp_path / "sweep" / "multirun.yaml").touch()
    new, old = find_runs([tmp_path])
    assert old.config == new.config and old.metrics == new.metrics and old.provenance == new.provenance
    assert (old.started, old.group) == (None, "sweep")


def test_roots_may_be_runs_sweeps_trees_and_globs_and_overlap(tmp_path: Path) -> None:
    for i in (0, 2, 10):
        fake_run(tmp_path / "outputs" / "sweeps" / "s" / f"{i}-a", {"seed": i})
    one = fake_run(tmp_path / "outputs" / "b" / "run")
    fake_run(one / "inner")  # in a run, so not looked for
    fake_run(tmp_path / "outputs" / "teachers" / "abc")
    fake_run(tmp_path / "outputs" / ".hidden" / "abc")
    outputs = tmp_path / "outputs"
    assert names(find_runs([outputs])) == ["run", "0-a", "2-a", "10-a"]
    assert names(find_runs([outputs, one, str(outputs / "sweeps" / "*"), outputs / "b"])) == ["run", "0-a", "2-a", "10-a"]
    assert names(find_runs([str(outputs / "*")])) == ["run", "0-a", "2-a", "10-a"]
    assert names(find_runs([str(outputs / "**" / "1*-a")])) == ["10-a"]
    assert names(find_runs([outputs / "teachers"])) == ["abc"]
    assert find_runs([tmp_path / "outputs" / ".hidden" / ".."]) != []


def test_links_are_followed_once(tmp_path: Path) -> None:
    fake_run(tmp_path / "disk" / "a")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "disk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "disk")
    assert names(find_runs([tmp_path / "outputs"])) == ["a"]
    assert names(find_runs([tmp_path / "outputs", tmp_path / "disk"])) == ["a"]


def test_a_root_that_is_not_there_is_a_mistake_and_an_empty_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist: give a folder that contains runs"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"No folder matches .*/x\*: give"):
        find_runs([str(tmp_path / "x*")])
    (tmp_path / "metrics.json").touch()
    with pytest.raises(ValueError, match=r"metrics.json is a file: give a run folder"):
        find_runs([tmp_path / "metrics.json"])
    assert find_runs([tmp_path]) == []


def test_a_run_is_running_while_it_shows_signs_of_life(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", state="running")
    stopped = fake_run(tmp_path / "b", state="stopped")
    assert [run.state for run in find_runs([tmp_path])] == ["running", "stopped"]
    (stopped / "checkpoints").mkdir()
    (stopped / "checkpoints" / "last.ckpt").touch()
    before = time.time() - 3600
    os.utime(stopped / "checkpoints", (before, before))
    assert [run.state for run in find_runs([tmp_path])] == ["running", "running"]


def damage(folder: Path, file: str, text: str) -> str:
    (folder / file).write_text(text)
    (run,) = find_runs([folder])
    assert run.state == "damaged"
    return run.problem


def test_damage_is_said_of_the_run_with_the_remedy(tmp_path: Path) -> None:
    fake_run(tmp_path / "half", state="damaged")
    (half,) = find_runs([tmp_path])
    assert (
        half.state == "damaged"
        and half.problem == "metrics.json is incomplete or invalid: rerun the job, or move the folder away"
    )
    assert half.seed == 0 and half.metrics == {}
    one = fake_run(tmp_path / "one")
    end = json.loads((one / "metrics.json").read_text())
    assert "metrics.json has no metrics" in damage(one, "metrics.json", "{}")
    assert "metrics.json is not a JSON object" in damage(one, "metrics.json", "[]")
    assert "metrics.json is incomplete or invalid" in damage(one, "metrics.json", "")
    end["metrics"]["test/student/nll"] = float("nan")
    assert damage(one, "metrics.json", json.dumps(end)) == (
        "metrics.json: test/student/nll is nan; the run diverged: lower optimizer.lr"
    )
    assert "test/student/nll" not in find_runs([one])[0].metrics and "test/student/ece" in find_runs([one])[0].metrics
    end["metrics"]["test/student/nll"] = None
    assert "test/student/nll is None; rerun the job" in damage(one, "metrics.json", json.dumps(end))
    del end["metrics"]["test/student/nll"]
    end["metrics"]["test/student/auroc"] = float("nan")  # nothing was wrong that confidence could have told
    (one / "metrics.json").write_text(json.dumps(end))
    assert find_runs([one])[0].state == "finished"
    assert "run.json is incomplete or invalid" in damage(one, "run.json", '{"config": {"na')
    assert find_runs([one])[0].seed == 0  # config.yaml still knows
    assert "run.json has no config" in damage(one, "run.json", "{}")
    (one / "run.json").unlink()
    assert "config.yaml is incomplete or invalid" in damage(one, "config.yaml", "a: [1, 2")
    assert "config.yaml: 'name' is missing or invalid, so this is not a run config" in damage(one, "config.yaml", "a: 1")
    assert "config.yaml: 'name' is missing or invalid" in damage(one, "config.yaml", "")
    assert find_runs([one])[0].name == "one"


def test_curves_leave_out_what_is_still_being_written(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "a", state="running")
    (run,) = find_runs([folder])
    whole = {"train/loss": [(0, 4, 2.5), (1, 9, 1.5)], "val/student/accuracy": [(0, 4, 0.5), (1, 9, 0.75)]}
    assert read_curves(run) == whole
    with (folder / "metrics.csv").open("a") as file:
        file.write("2,14,1.0")  # 1.05 to be
    assert read_curves(run) == whole
    with (folder / "metrics.csv").open("a") as file:
        file.write("5,\n2,x,1\n3\n4,19,nan,oops,7,8\n")
    assert read_curves(run)["train/loss"] == [*whole["train/loss"], (2, 14, 1.05)]
    (folder / "metrics.csv").unlink()
    assert read_curves(run) == {}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    original = fake_run(tmp_path / "0")
    for i in range(1, runs.INDEX_FROM):
        shutil.copytree(original, tmp_path / str(i))
    return tmp_path


def test_an_index_is_as_good_as_the_files(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_runs([many])
    assert (many / FILE).is_file()
    read: list[Path] = []

    def counted(folder: Path, present: frozenset[str]) -> records.Record:
        read.append(folder)
        return records.read_record(folder, present)

    monkeypatch.setattr(runs, "read_record", counted)
    assert find_runs([many]) == first and not read
    (many / "7" / "metrics.json").unlink()
    shutil.rmtree(many / "8")
    end = (many / "9" / "metrics.json").read_text().replace('"test/student/accuracy": 0.91', '"test/student/accuracy": 0.1')
    (many / "9" / "metrics.json").write_text(end)
    again = {run.path.name: run for run in find_runs([many])}
    assert sorted(path.name for path in read) == ["7", "9"]
    assert again["7"].state == "running" and "8" not in again and again["9"].metrics["test/student/accuracy"] == 0.1
    with sqlite3.connect(many / FILE) as base:
        assert base.execute("SELECT count(*) FROM records").fetchone()[0] == runs.INDEX_FROM - 1


@pytest.mark.parametrize("harm", ["no database", "older", "torn", "readonly"])
def test_an_index_that_is_of_no_use_is_made_anew(many: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_runs([many])
    file = many / FILE
    if harm == "no database":
        file.write_bytes(b"not a database at all" * 1000)
    elif harm == "torn":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif harm == "older":
        with sqlite3.connect(file) as base:
            base.execute("UPDATE records SET record = x'00'")
            base.execute("PRAGMA user_version = 0")
        base.close()
    else:

        def refused(*_: object, **__: object) -> None:
            raise sqlite3.OperationalError("attempt to write a readonly database")

        file.unlink()
        monkeypatch.setattr(sqlite3, "connect", refused)  # the tests may run as root, whom no permission stops
    assert find_runs([many]) == first
    assert find_runs([many]) == first
    monkeypatch.undo()
    if harm != "readonly":
        base = sqlite3.connect(file)
        assert base.execute("SELECT count(*) FROM records").fetchone()[0] == runs.INDEX_FROM
        base.close()


def test_few_runs_leave_no_index_behind(tmp_path: Path) -> None:
    fake_run(tmp_path / "a")
    find_runs([tmp_path])
    assert not (tmp_path / FILE).exists()


def test_the_baselines_of_a_run_are_runs_beside_it(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", {"seed": 0})
    fake_run(tmp_path / "a" / "baselines" / "scratch", {"seed": 0, "baseline": "scratch"})
    fake_run(tmp_path / "a" / "elsewhere", {"seed": 1})
    assert [run.baseline for run in find_runs([tmp_path])] == [None, "scratch"]
    assert [run.baseline for run in find_runs([tmp_path / "a"])] == [None, "scratch"]
