"""A comparison pairs by seed what may be paired, and says beside it everything in which the runs are not alike."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from fake import CONFIG, fake_run
from scipy import stats

from kdx.compare import tables
from kdx.compare.comparison import Comparison, compare
from kdx.compare.runs import find_runs

ACCURACY, NLL, ECE = "test/student/accuracy", "test/student/nll", "test/student/ece"
KD = (0.92, 0.95, 0.93)
LABELS = (0.90, 0.91, 0.92)


def seeds(folder: Path, config: Mapping[str, Any], accuracies: Sequence[float], first: int = 0, **more: Any) -> None:
    """Runs of one config with these accuracies; the NLL is better, and the time shorter, where the accuracy is."""
    for seed, accuracy in enumerate(accuracies, first):
        numbers = {ACCURACY: accuracy, NLL: 1 - accuracy, "seconds": 100 - accuracy}
        fake_run(folder / str(seed), {**config, "seed": seed}, numbers, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    seeds(tmp_path / "kd", {}, KD)
    seeds(tmp_path / "scratch", {"baseline": "scratch"}, LABELS)
    return tmp_path


def compared(folder: Path, metrics: Sequence[str] | None = None, against: str | None = None) -> Comparison:
    return compare(find_runs([folder]), metrics, against)


def remarked(comparison: Comparison, start: str) -> str:
    return next((caveat for caveat in comparison.caveats if caveat.startswith(start)), "")


def test_means_differences_and_intervals_are_those_of_a_paired_t_test(folder: Path) -> None:
    kd, scratch = (comparison := compared(folder)).rows
    assert comparison.against == "scratch" and comparison.caveats == () and kd.against == "baseline=scratch"
    assert kd.n == 3 and kd.selection == "best val/student/accuracy" and kd.cells[ACCURACY].n == 3
    assert kd.cells[ACCURACY].mean == pytest.approx(stats.tmean(KD)) and kd.cells[ACCURACY].std == pytest.approx(stats.tstd(KD))
    difference = kd.differences[ACCURACY]
    assert difference.values == pytest.approx({0: 0.02, 1: 0.04, 2: 0.01}) and difference.estimate is not None
    wanted = stats.ttest_rel(KD, LABELS).confidence_interval(0.95)
    assert (difference.estimate.interval.low, difference.estimate.interval.high) == pytest.approx((wanted.low, wanted.high))
    assert difference.estimate.bootstrap.low < difference.mean < difference.estimate.bootstrap.high
    assert scratch.against is None and scratch.differences == {}
    assert comparison.intervals == 3  # accuracy, NLL and seconds; whatever never varies has none


def test_pairs_are_made_by_seed_and_not_by_place(tmp_path: Path) -> None:
    seeds(tmp_path / "kd", {}, KD)
    seeds(tmp_path / "scratch", {"baseline": "scratch"}, LABELS, first=1)
    row = (comparison := compared(tmp_path)).rows[0]
    assert row.differences[ACCURACY].values == pytest.approx({1: KD[1] - LABELS[0], 2: KD[2] - LABELS[1]})
    told = "seeds differ: cqkd_digits has 0, 1, 2, baseline=scratch has 1, 2, 3; paired seeds: 1, 2"
    assert remarked(comparison, "seeds") == told


def test_default_metrics_are_quality_on_test_and_cost(folder: Path) -> None:
    metrics = compared(folder).metrics
    assert metrics[:6] == (ACCURACY, NLL, ECE, "test/student/entropy", "test/teacher/accuracy", "test/teacher/ece")
    assert {"student/parameters", "student/macs", "seconds", "teacher_share"} <= set(metrics) and "energy_joules" not in metrics


def test_metrics_are_asked_for_by_name_or_glob_and_a_typo_gets_a_suggestion(folder: Path) -> None:
    assert compared(folder, ["seconds", "test/student/e*", ECE]).metrics == ("seconds", "test/student/entropy", ECE)
    assert compared(folder, ["last/val/student/nll"]).rows[0].cells["last/val/student/nll"].mean == 0.3
    with pytest.raises(
        ValueError, match=r"No run has the metric 'test/student/acuracy'\. Did you mean 'test/student/accuracy'"
    ):
        compared(folder, ["test/student/acuracy"])


def test_a_metric_that_some_runs_lack_is_blank_there(folder: Path) -> None:
    seeds(folder / "other", {"temperature.value": 1.0}, [0.9])
    fake_run(folder / "other" / "1", {"temperature.value": 1.0, "seed": 1}, {ACCURACY: None})
    comparison = compared(folder)
    kd, other, scratch = comparison.rows
    assert other.n == 2 and other.cells[ACCURACY].n == 1 and "test/teacher/ece" not in scratch.cells
    assert "test/teacher/ece" not in kd.differences and kd.cells["test/teacher/ece"].n == 3
    assert other.differences[ACCURACY].estimate is None and other.differences[ECE].estimate is not None
    texts = tables.lines(comparison)
    assert texts[2].cells[0] == "0.900 (n=1)" and texts[3].cells[0] == "0.0000 (no interval)" and texts[4].cells[4] == ""


def test_one_seed_has_no_interval_and_says_so(tmp_path: Path) -> None:
    seeds(tmp_path / "kd", {}, KD[:1])
    seeds(tmp_path / "scratch", {"baseline": "scratch"}, LABELS[:1])
    row = (comparison := compared(tmp_path)).rows[0]
    assert row.cells[ACCURACY].std is None and row.differences[ACCURACY].estimate is None
    assert "an interval needs at least two pairs of seeds: run more" in row.differences[ACCURACY].why
    assert remarked(
        comparison, "each group has one seed, so there is no standard deviation: run more seeds, such as seed=0,1,2,3,4"
    )
    assert "(no interval): an interval needs at least two pairs of seeds" in tables.terminal(comparison)
    assert "+0.0200 (no interval)" in tables.markdown(comparison)


def test_against_takes_a_baseline_a_label_or_a_name(folder: Path) -> None:
    labels = {"name": "labels", "teacher": None, "losses": {"ce": CONFIG["losses"]["ce"]}, "decay": "all"}
    seeds(folder / "labels", labels, LABELS)
    assert [row.against for row in compared(folder, against="scratch").rows] == ["baseline=scratch", None, None]
    assert compared(folder, against="baseline=scratch").against == "scratch"
    by_name = compared(folder, against="labels")
    assert [row.against for row in by_name.rows] == ["labels", None, "labels"]
    assert by_name.rows[0].differences[ACCURACY].mean == pytest.approx(0.07 / 3)
    with pytest.raises(ValueError, match=r"No run, group or baseline named 'lables'\. Did you mean 'labels'"):
        compared(folder, against="lables")
    with pytest.raises(ValueError, match=r"No finished run has baseline=self: train some with baselines=\[self\]"):
        compared(folder, against="self")
    seeds(folder / "kd1", {"temperature.value": 1.0}, KD)
    with pytest.raises(
        ValueError, match=r"'cqkd_digits' names 3 groups: give the label of one of them: cqkd_digits temperature.value=1"
    ):
        compared(folder, against="cqkd_digits")
    assert compared(folder, against="cqkd_digits temperature.value=1").against == "cqkd_digits temperature.value=1"


def test_several_kinds_of_baselines_need_a_choice(folder: Path) -> None:
    seeds(folder / "fixed", {"baseline": "fixed_t"}, LABELS)
    comparison = compared(folder)
    assert comparison.against is None and not any(row.differences for row in comparison.rows)
    assert remarked(comparison, "the runs have several baselines: choose one with --against fixed_t or --against scratch")
    assert compared(folder, against="fixed_t").rows[0].against == "baseline=fixed_t"


def test_a_baseline_that_is_nobodys_says_why(tmp_path: Path) -> None:
    seeds(tmp_path / "kd", {"data.batch_size": 32}, KD)
    seeds(tmp_path / "scratch", {"baseline": "scratch"}, LABELS)
    remedy = "the most similar one differs in data.batch_size; train its baseline with baselines=[scratch]"
    why = f"cqkd_digits has no baseline=scratch: {remedy}"
    comparison = compared(tmp_path)
    assert why in comparison.caveats and comparison.rows[0].against is None
    assert remarked(comparison, "batch sizes differ: 32 (cqkd_digits); 64 (baseline=scratch)")
    with pytest.raises(ValueError, match=re.escape(remedy)):
        compared(tmp_path, against="scratch")
    with pytest.raises(ValueError, match="All runs are baseline=scratch: also give the runs to compare with it"):
        compared(tmp_path / "scratch", against="scratch")


def test_runs_of_different_tasks_stand_side_by_side_and_are_not_paired(tmp_path: Path) -> None:
    seeds(tmp_path / "digits", {"name": "digits"}, KD)
    seeds(tmp_path / "cifar", {"name": "cifar", "data.source": {"_target_": "kdx.data.vision.Cifar10", "root": "d"}}, LABELS)
    comparison = compared(tmp_path, against="digits")
    assert remarked(comparison, "the tasks differ: Cifar10 (cifar); Digits (digits). Numbers of different tasks are not paired")
    assert len(comparison.rows) == 2 and not any(row.differences for row in comparison.rows)


@pytest.mark.parametrize(
    ("config", "more", "caveat"),
    [
        ({"trainer.max_epochs": 60}, {}, "budgets differ: 150 epochs (kd); 60 epochs (labels)"),
        ({"trainer.max_epochs": -1, "trainer.max_steps": 9}, {}, "budgets differ: 150 epochs (kd); 9 steps (labels)"),
        ({"trainer.accumulate_grad_batches": 2}, {}, "batch sizes differ: 64 (kd); 128 (labels)"),
        ({}, {"data": {"fingerprint": "d2"}}, "data (fingerprints) differ: d1 (kd); d2 (labels)"),
        ({"selection": "last"}, {}, "selection rules differ: best val/student/accuracy (kd); last (labels)"),
        ({}, {"provenance": {"git_commit": "a" * 40}}, "commits differ: 9d3e8a3ae (kd); aaaaaaaaa (labels)"),
        ({}, {"provenance": {"versions": {"kdx": "0.1.0", "torch": "2.11"}}}, "versions of torch differ: 2.15.0 (kd); 2.11"),
        ({}, {"provenance": {"hardware": {"gpus": ["H100"] * 2}}}, "hardware types differ: 2 CPU cores (kd); 2 x H100"),
        (
            {},
            {"provenance": {"git_dirty": True}},
            "the code had uncommitted changes, so the commit alone does not",
        ),
        ({}, {"caveats": {"teacher_saw_test": "It saw the test images."}}, "* It saw the test images (labels)"),
        ({"seed": 3}, {}, "seeds differ: 0 (kd); 3 (labels)"),
        ({}, {"metrics": dict.fromkeys((ACCURACY, NLL))}, ""),
    ],
)
def test_whatever_is_not_alike_is_remarked(tmp_path: Path, config: dict[str, Any], more: dict[str, Any], caveat: str) -> None:
    fake_run(tmp_path / "a", {"name": "kd"})
    fake_run(tmp_path / "b", {"name": "labels", "decay": "all", **config}, **more)
    told = [text for text in compared(tmp_path).caveats if not text.startswith("each group has one seed")]
    assert len(told) == bool(caveat) and all(text.startswith(caveat) for text in told)


def test_a_run_with_a_caveat_of_its_own_is_marked_in_every_table(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", {"name": "kd"})
    fake_run(tmp_path / "b", {"name": "labels", "decay": "all"}, caveats={"teacher_at_chance": "The teacher is at chance."})
    found = compared(tmp_path)
    assert [line.head for line in tables.lines(found)] == ["kd", "labels *"]
    for table in (tables.terminal(found), tables.markdown(found), tables.latex(found)):
        assert "labels *" in table and "kd *" not in table and "The teacher is at chance" in table


def test_runs_that_do_not_count_are_told_and_not_fatal(folder: Path) -> None:
    fake_run(folder / "half", {"seed": 7}, state="damaged")
    fake_run(folder / "running", {"seed": 8}, state="running")
    fake_run(folder / "stopped", {"seed": 9}, state="stopped")
    fake_run(folder / "again", {"seed": 0}, {ACCURACY: KD[0]})
    comparison = compared(folder)
    assert comparison.rows[0].n == 3
    assert "metrics.json is incomplete or invalid: rerun" in remarked(comparison, f"damaged run excluded: {folder / 'half'}")
    assert remarked(comparison, "means exclude damaged runs")
    assert remarked(comparison, "excluded as unfinished: 1 running and 1 stopped of 7 runs of cqkd_digits")
    assert remarked(comparison, "cqkd_digits has 4 runs for 3 seeds: the latest run of a seed is used")


def test_without_test_val_stands_in_and_it_is_said(tmp_path: Path) -> None:
    untested = dict.fromkeys(json.loads((fake_run(tmp_path / "x") / "metrics.json").read_text())["metrics"])
    untested = {name: None for name in untested if name.startswith("test/")}
    fake_run(tmp_path / "val" / "a", {"test": False}, untested)
    comparison = compared(tmp_path / "val")
    assert comparison.metrics[0] == "val/student/accuracy"
    assert remarked(comparison, "no run was tested (test=false): the numbers are from val, on which the weights were selected")
    both = compared(tmp_path)
    assert both.metrics[0] == ACCURACY and ACCURACY not in both.rows[0].cells
    assert remarked(both, "test=false: 1 of 1 runs were not tested (test=false)")


def test_nothing_finished_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No runs found: give a folder that contains runs"):
        compare([])
    fake_run(tmp_path / "a", state="running")
    fake_run(tmp_path / "b", state="damaged")
    with pytest.raises(ValueError, match=r"None of 2 runs is finished \(1 running, 1 damaged\): wait.*metrics.json is inc"):
        compared(tmp_path)


def test_bold_is_the_best_only_if_it_differs_from_its_baseline_for_the_better(tmp_path: Path) -> None:
    seeds(tmp_path / "scratch", {"baseline": "scratch"}, LABELS)
    seeds(tmp_path / "clear", {"temperature.value": 1.0}, [value + 0.05 + seed / 1000 for seed, value in enumerate(LABELS)])
    seeds(tmp_path / "worse", {"temperature.value": 2.0}, [value - 0.05 - seed / 1000 for seed, value in enumerate(LABELS)])

    def bold(folder: Path) -> set[str]:
        comparison = compared(folder, [ACCURACY, NLL, ECE, "test/student/entropy", "seconds"])
        lines = tables.lines(comparison)
        return {
            line.head + " " + name for line in lines for name, best in zip(comparison.metrics, line.best, strict=True) if best
        }

    assert bold(tmp_path) == {f"temperature.value=1 {ACCURACY}", f"temperature.value=1 {NLL}"}
    seeds(tmp_path / "noisy", {"temperature.value": 4.0}, [0.99, 0.9, 1.0])  # the best mean, but not clearly
    assert bold(tmp_path) == set()


def test_tables_hold_n_rule_interval_and_remarks(folder: Path) -> None:
    seeds(folder / "odd", {"temperature.value": 1.0, "name": "a_b & 50%|$x"}, [0.5, 0.6], provenance={"git_dirty": True})
    comparison = compared(folder, [ACCURACY, "student/parameters"])
    rule = "weights selected: best val/student/accuracy."
    for text in (tables.terminal(comparison), tables.markdown(comparison), tables.latex(comparison)):
        assert rule in text and "Student's 95 % interval" in text and "uncommitted changes" in text and "one in 20" in text
    rows = [line for line in tables.markdown(comparison).splitlines() if line.startswith("|")]
    assert rows[0] == "| group | n | `test/student/accuracy` | `student/parameters` |"
    assert rows[2].startswith("| cqkd_digits | 3 | 0.933 ± 0.015 | 77754 |")
    assert rows[3].startswith("| &nbsp; − baseline=scratch | 3 | +0.0233 [−0.0146, 0.0613] | 0 |")
    assert "a_b & 50%\\|$x" in rows[4]
    latex = tables.latex(comparison)
    assert r"a\_b \& 50\%\textbar{}\$x" in latex and r"0.933 $\pm$ 0.015" in latex
    assert r"\quad $-$ baseline=scratch & 3 & +0.0233 [$-$0.0146, 0.0613] & 0 \\" in latex
    assert latex.startswith("\\begin{tabular}{lrrr}\n\\toprule") and r"\bottomrule" in latex
    found = list(csv.DictReader(io.StringIO(tables.comma_separated(comparison))))
    first = found[0]
    assert (first["group"], first["metric"], first["n"], first["seeds"], first["pairs"]) == (
        "cqkd_digits", ACCURACY, "3", "0 1 2", "3",
    )  # fmt: skip
    assert float(first["difference"]) == pytest.approx(0.07 / 3) and float(first["low"]) < 0 < float(first["bootstrap_low"])
    assert len(found) == 6 and found[-1]["against"] == "" and found[-1]["baseline"] == "scratch"


def test_a_narrow_terminal_gets_the_table_in_parts(folder: Path) -> None:
    comparison = compared(folder, [ACCURACY, NLL, ECE])
    text = tables.terminal(comparison, width=80)
    assert [line.split()[0] for line in text.splitlines() if line.startswith("cqkd_digits")] == ["cqkd_digits"] * 2
    assert "[−0.0146, 0.0613]" in text and text.count("weights selected") == 1
    assert len(re.findall("^cqkd_digits", tables.terminal(comparison), re.MULTILINE)) == 1


ODD = (None, 1, "x", [], {}, True, [1], {"a": 1}, 1.5, float("nan"))


def spoil(node: dict[str, Any], chance: random.Random) -> None:
    """Put something else in one place of a tree."""
    key = chance.choice(list(node))
    inner = node[key]
    if isinstance(inner, dict) and inner and chance.random() < 0.7:
        spoil(inner, chance)
    else:
        node[key] = deepcopy(chance.choice(ODD))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_files_hold_there_is_a_table(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for trial in range(10):
        runs = [
            fake_run(tmp_path / str(trial) / str(i), {"seed": i // 2, "baseline": (None, "scratch")[i % 2]}) for i in range(4)
        ]
        for _ in range(4):
            file = chance.choice(runs[:3]) / chance.choice(["run.json", "metrics.json"])
            whole = json.loads(file.read_text())
            for _ in range(4):
                spoil(whole, chance)
            file.write_text(json.dumps(whole))
        comparison = compared(tmp_path / str(trial))
        assert all(table(comparison) for table in tables.FORMATS.values())
