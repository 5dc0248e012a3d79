"""kdx-compare answers quickly, in the format that was asked for, and a mistake in a sentence."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from fake import fake_run

from kdx.cli import compare, report, run_folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in (0, 1):
        for value in (1.0, 4.0):
            accuracy = {"test/student/accuracy": 0.9 - value / 100 + seed / 1000}
            fake_run(tmp_path / "runs" / f"{value}-{seed}", {"temperature.value": value, "seed": seed}, accuracy)
        fake_run(tmp_path / "runs" / f"s-{seed}", {"baseline": "scratch", "seed": seed}, {"test/student/accuracy": 0.8})
    return tmp_path


def run(command: Any, *arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as leaving:
        command([str(argument) for argument in arguments])
    return int(leaving.value.code or 0)


def test_a_table_in_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(compare.main, folder / "runs", "--sort", "test/student/accuracy") == 0
    text = capsys.readouterr().out
    heads = [line.split("│")[0].strip() for line in text.splitlines() if "│" in line]
    order = ["temperature.value=1", "− baseline=scratch", "temperature.value=4", "− baseline=scratch", "baseline=scratch"]
    assert [head for head in heads if head] == order
    assert "weights selected: best val/student/accuracy." in text


def test_conditions_choose_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def heads(*where: str) -> list[str]:
        conditions = [part for condition in where for part in ("--where", condition)]
        assert run(compare.main, folder / "runs", *conditions, "--format", "csv", "--metrics", "seconds") == 0
        return [line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]]

    assert heads("temperature.value=4") == ["cqkd_digits"]
    assert heads("temperature.value=4.0", "seed=0") == ["cqkd_digits"]
    assert heads("baseline=none") == ["temperature.value=1", "temperature.value=4"]
    assert heads("student.architecture=*resnet8", "optimizer=AdamW", "test=true") == [
        "temperature.value=1",
        "temperature.value=4",
        "baseline=scratch",
    ]
    assert heads("temperature=none") == ["baseline=scratch"]


def test_the_file_says_which_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    starts = {"a.md": "- Accuracy: ", "a.csv": "group,baseline,seeds", "a.tex": "\\begin{tabular}", "a.txt": "Accuracy: "}
    for name, start in starts.items():
        assert run(compare.main, folder / "runs", "-o", folder / "made" / name) == 0
        assert (folder / "made" / name).read_text().startswith(start)
        assert capsys.readouterr().out == f"{folder / 'made' / name}\n"
    assert run(compare.main, folder / "runs", "-o", folder / "b.csv", "--format", "markdown") == 0
    assert (folder / "b.csv").read_text().startswith("- Accuracy: ")


def test_csv_leaves_the_remarks_to_the_error_stream(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_run(folder / "runs" / "half", {"seed": 5}, state="damaged")
    assert run(compare.main, folder / "runs", "--format", "csv") == 0
    said = capsys.readouterr()
    assert "damaged" not in said.out and "kdx: note: damaged run excluded" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "kdx: the following arguments are required: RUNS; kdx-compare --help shows examples"),
        (["nowhere"], "kdx: nowhere does not exist: give a folder that contains runs, such as outputs"),
        (["empty"], "kdx: No runs found in empty; expected a folder that contains runs, such as outputs"),
        (["runs", "--against", "scrach"], "kdx: No run, group or baseline named 'scrach'. Did you mean 'scratch'"),
        (["runs", "--metrics", "test/student/acc"], "kdx: No run has the metric 'test/student/acc'. Did you mean"),
        (["runs", "--sort", "second"], "kdx: Unknown column in --sort second. Did you mean 'seconds'"),
        (["runs", "--where", "temperature.val=1"], "kdx: Unknown config key in --where temperature.val. Did you mean"),
        (
            ["runs", "--where", "temperature.value=7"],
            "kdx: No run matches --where temperature.value=7. Values: 1, 4, none.",
        ),
        (["runs", "--where", "temperature"], "kdx: Invalid --where temperature: expected KEY=VALUE of the config"),
        (["runs", "--format", "html"], "kdx: argument --format: invalid choice: 'html'"),
        (["runs", "-o", "a.html"], "kdx: Unknown format of a.html: use one of .md, .csv, .tex, .txt, or give --format"),
        (["runs", "-o", "empty", "--format", "csv"], "kdx: empty is a folder: use -o FILE with the path of a file"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    assert run(compare.main, *arguments) == run_folders.MISUSED
    said = capsys.readouterr()
    assert said.err.startswith(message) and said.err.count("\n") == 1 and said.out == ""


def test_it_starts_without_what_takes_long_to_import(folder: Path) -> None:
    """No torch, no Hydra, no figures: they would take seconds."""
    script = (
        "import sys; from kdx.cli import compare\n"
        "try: compare.main(sys.argv[1:])\n"
        "except SystemExit as leaving: assert not leaving.code\n"
        "slow = {'torch', 'hydra', 'omegaconf', 'matplotlib', 'pandas', 'sklearn', 'timm'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder / "runs")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "baseline=scratch" in done.stdout


def test_report_hands_the_chosen_runs_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    page = types.ModuleType("kdx.compare.page")
    page.write = lambda runs, path, against: calls.append((len(runs), path, against))
    page.watch = lambda roots, path, against, seconds, find: calls.append((len(find(roots)), path, against, seconds))
    import kdx.compare

    monkeypatch.setitem(sys.modules, "kdx.compare.page", page)
    monkeypatch.setattr(kdx.compare, "page", page, raising=False)
    file = folder / "made" / "r.html"
    assert run(report.main, folder / "runs", "-o", file, "--where", "baseline=none", "--against", "a") == 0
    assert run(report.main, folder / "runs", "-o", file, "--watch") == 0
    assert run(report.main, folder / "made", "-o", file, "--watch", "2.5") == 0  # runs may come later
    assert calls == [(4, file, "a"), (6, file, None, 10.0), (0, file, None, 2.5)]
    assert run(report.main, folder / "runs", "--watch", "0") == run_folders.MISUSED
    assert run(report.main, folder / "made") == run_folders.MISUSED


def test_interruption_and_a_full_disk_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: BaseException) -> Any:
        def work(*_: object) -> None:
            raise error

        return work

    monkeypatch.setattr(compare, "_compare", fails(KeyboardInterrupt()))
    assert run(compare.main) == run_folders.INTERRUPTED
    monkeypatch.setattr(compare, "_compare", fails(OSError("no space left")))
    assert run(compare.main) == run_folders.FAILED
