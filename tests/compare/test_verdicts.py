"""A comparison begins with what it says: the group that val prefers, and whether it is clearly better on test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake import fake_run
from scipy import stats

from kdx.compare import page, tables
from kdx.compare.comparison import compare
from kdx.compare.runs import find_runs
from kdx.compare.verdicts import verdicts

VAL, TEST = "val/student/accuracy", "test/student/accuracy"
LABELS = (0.90, 0.91, 0.92)


def group(folder: Path, config: dict[str, object], val: float, test: Sequence[float], **more: float) -> None:
    for seed, accuracy in enumerate(test):
        fake_run(folder / str(seed), {**config, "seed": seed}, {VAL: val, TEST: accuracy, **more})


def said(folder: Path, about: str, against: str | None = None) -> str:
    return next((text for text in verdicts(compare(find_runs([folder]), against=against)) if text.startswith(about)), "")


def test_the_group_is_chosen_on_val_and_compared_on_test(tmp_path: Path) -> None:
    group(tmp_path / "scratch", {"baseline": "scratch"}, 0.9, LABELS)
    group(tmp_path / "one", {"temperature.value": 1}, 0.95, (0.92, 0.94, 0.95))
    group(tmp_path / "four", {"temperature.value": 4}, 0.93, (0.99, 0.99, 0.99))  # better on test, which chooses nothing
    low, high = stats.ttest_1samp([0.02, 0.03, 0.03], 0).confidence_interval()
    assert said(tmp_path, "Accuracy") == (
        "Accuracy: temperature.value=1, the best of 2 groups on val, is clearly better than scratch on test "
        f"(+0.0267 [{low:.4f}, {high:.4f}], n = 3)."
    )


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ((0.89, 0.93, 0.92), "is not clearly different from scratch on test (+0.0033 ["),
        ((0.80, 0.81, 0.83), "is clearly worse than scratch on test (−0.0967 ["),
        ((0.93,), "differs from scratch on test by +0.0300; n = 1 is not enough for an interval"),
    ],
)
def test_what_is_not_clear_is_said(tmp_path: Path, test: Sequence[float], words: str) -> None:
    group(tmp_path / "scratch", {"baseline": "scratch"}, 0.9, LABELS)
    group(tmp_path / "kd", {}, 0.95, test)
    sentence = said(tmp_path, "Accuracy")
    assert words in sentence and "best of" not in sentence


def test_less_is_better_for_a_loss_and_the_scaled_baseline_stands_beside(tmp_path: Path) -> None:
    scaled = {"test/student_scaled/nll": 0.25}
    group(
        tmp_path / "scratch",
        {"baseline": "scratch"},
        0.9,
        LABELS,
        **{"val/student/nll": 0.4, "test/student/nll": 0.4},
        **scaled,
    )
    group(tmp_path / "a", {}, 0.9, LABELS, **{"val/student/nll": 0.2, "test/student/nll": 0.3})
    group(tmp_path / "b", {"temperature.value": 4}, 0.9, LABELS, **{"val/student/nll": 0.3, "test/student/nll": 0.1})
    sentence = said(tmp_path, "NLL")
    assert "temperature.value=10, the best of 2" in sentence and "clearly better than scratch" in sentence
    assert sentence.endswith("; 0.300, where scratch with temperature scaling has 0.250.")


def test_it_comes_first_in_the_terminal_in_markdown_and_on_the_page(tmp_path: Path) -> None:
    group(tmp_path / "scratch", {"baseline": "scratch"}, 0.9, LABELS)
    group(tmp_path / "kd", {}, 0.95, (0.99, 0.98, 0.99))
    runs = find_runs([tmp_path])
    sentence = said(tmp_path, "Accuracy")
    assert tables.terminal(compare(runs)).startswith(sentence) and tables.markdown(compare(runs)).startswith(f"- {sentence}")
    text = page.write(runs, tmp_path / "page.html").read_text()
    assert text.index("Accuracy: ") < text.index("<table") and '<ul class="verdicts">' in text


def test_without_a_baseline_the_value_is_said_and_how_to_get_one(tmp_path: Path) -> None:
    group(tmp_path / "kd", {}, 0.95, LABELS)
    assert said(tmp_path, "Accuracy") == (
        "Accuracy: cqkd_digits has 0.910 ± 0.010 on test (n = 3); not compared with a baseline: baselines=[scratch] trains one."
    )
    group(tmp_path / "scratch", {"baseline": "scratch"}, 0.9, LABELS)
    group(tmp_path / "raw", {"baseline": "fixed_t"}, 0.9, LABELS)
    assert "not compared with a baseline." in said(tmp_path, "Accuracy")  # of two, none is chosen
    assert "scratch on test" in said(tmp_path, "Accuracy", "scratch")


def test_groups_that_are_equal_on_val_are_not_called_the_best(tmp_path: Path) -> None:
    for tau in (1, 4):
        group(tmp_path / str(tau), {"temperature.value": tau}, 0.95, LABELS)
    group(tmp_path / "scratch", {"baseline": "scratch"}, 0.9, LABELS)
    assert said(tmp_path, "Accuracy") == (
        "Accuracy: temperature.value=1, the first of 2 groups that are equally good on val, has exactly the numbers of scratch "
        "on test (n = 3)."
    )


def test_a_group_without_a_baseline_of_its_own_is_not_counted(tmp_path: Path) -> None:
    group(tmp_path / "scratch", {"baseline": "scratch"}, 0.9, LABELS)
    group(tmp_path / "other", {"resolution.student": 8}, 0.99, LABELS)
    for tau in (1, 4):
        group(tmp_path / str(tau), {"temperature.value": tau}, 0.9 + tau / 100, (0.92, 0.94, 0.95))
    assert "temperature.value=4, the best on val of 2 groups that have a baseline, is" in said(tmp_path, "Accuracy")


def test_without_a_test_split_it_is_said_that_val_chose_as_well(tmp_path: Path) -> None:
    for name, config in (
        ("scratch", {"baseline": "scratch"}),
        ("1", {"temperature.value": 1}),
        ("4", {"temperature.value": 4}),
    ):
        group(tmp_path / name, config, 0.9, LABELS)
        for file in (tmp_path / name).rglob("metrics.json"):
            report = json.loads(file.read_text())
            report["metrics"] = {key: value for key, value in report["metrics"].items() if not key.startswith("test/")}
            report["metrics"][VAL] += 0.01 * config.get("temperature.value", 0)  # type: ignore[operator]  # a number
            file.write_text(json.dumps(report))
    sentence = said(tmp_path, "Accuracy")
    assert "scratch on val (" in sentence and sentence.endswith("; val has chosen the group as well, which is optimistic.")
