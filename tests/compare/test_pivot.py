"""The table of methods by pairs: what is a method, what is bold, and how numbers are written."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fake import fake_run
from scipy import stats

from kdx.cli import compare as command
from kdx.compare import pivot
from kdx.compare.comparison import compare
from kdx.compare.runs import find_runs
from kdx.compare.tables import tex

STUDENTS, WEIGHT = ("cifar_resnet8", "cifar_resnet14"), "losses.kl.weight"
METRIC = "test/student/accuracy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two students, each with its own learning rate, two weights and a baseline; the second weight is better for the first."""
    rng = np.random.default_rng(0)
    for s, student in enumerate(STUDENTS):
        for m, method in enumerate([{WEIGHT: 0.5}, {WEIGHT: 0.9}, {"baseline": "scratch"}]):
            for seed in range(4):
                gain = (0.0, 0.03 * (1 - s), -0.05)[m]
                metrics = {
                    METRIC: 0.8 + 0.1 * s + gain + 0.02 * seed + 0.001 * rng.standard_normal(),
                    "test/teacher/accuracy": 0.95,
                }
                config = {"student.architecture": student, "optimizer.lr": 0.1 * (s + 1), "seed": seed, **method}
                fake_run(tmp_path / "runs" / f"{s}{m}{seed}", config, metrics)
    return tmp_path / "runs"


def test_a_column_is_a_pair_and_a_row_what_differs_within_pairs(folder: Path) -> None:
    table = pivot.pivot(compare(find_runs([folder])), METRIC)
    assert table.pairs == tuple(("cifar_resnet20, 8 px", f"{student}, 4 px") for student in STUDENTS)
    assert table.methods == ("baseline=scratch", f"{WEIGHT}=0.5", f"{WEIGHT}=0.9")
    assert len(table.entries) == 6 and list(table.teachers.values()) == pytest.approx([0.95] * 2)


def test_bold_is_the_best_and_what_is_not_clearly_worse(folder: Path) -> None:
    table = pivot.pivot(compare(find_runs([folder])), METRIC)
    for pair in table.pairs:
        column = {method: np.array(list(table.entries[method, pair].cell.values.values())) for method in table.methods}
        best = max(column.values(), key=np.mean)
        for method, values in column.items():
            p_value = 1.0 if values is best else stats.ttest_rel(best, values).pvalue
            assert table.entries[method, pair].is_bold == (p_value >= 0.05), (pair, method)
    assert [table.entries[f"{WEIGHT}=0.5", pair].is_bold for pair in table.pairs] == [False, True]


def test_fractions_are_written_in_per_cent_and_others_as_they_are(folder: Path) -> None:
    comparison = compare(find_runs([folder]))
    text = pivot.markdown(pivot.pivot(comparison, METRIC))
    cell = pivot.pivot(comparison, METRIC).entries[f"{WEIGHT}=0.9", ("cifar_resnet20, 8 px", "cifar_resnet8, 4 px")].cell
    values = 100 * np.array(list(cell.values.values()))
    assert f"**{values.mean():.2f} ± {values.std(ddof=1):.2f}**" in text and f"| {METRIC}, % |" in text and "| 95.00 |" in text
    assert "0.260 ± 0.000" in pivot.markdown(pivot.pivot(comparison, "test/student/nll"))
    with pytest.raises(ValueError, match="No group has the metric 'test/student/x': name a metric of the student"):
        pivot.pivot(comparison, "test/student/x")


def test_one_seed_has_no_spread_and_only_the_best_is_bold(tmp_path: Path) -> None:
    for tau, accuracy in ((1.0, 0.8), (4.0, 0.9)):
        fake_run(tmp_path / str(tau), {"temperature.value": tau}, {METRIC: accuracy})
    table = pivot.pivot(compare(find_runs([tmp_path])), METRIC)
    assert "| temperature.value=1 | 80.00 |" in pivot.markdown(table) and "**90.00**" in pivot.markdown(table)


def test_signs_that_plain_latex_lacks_are_commands() -> None:
    assert tex("τ=4 → α, ω ≤ 5 ± 1 × 50% ü") == r"$\tau$=4 $\to$ $\alpha$, $\omega$ $\leq$ 5 $\pm$ 1 $\times$ 50\% ü"


def test_latex_has_the_rules_of_booktabs_and_a_cell_for_each_column(folder: Path) -> None:
    text = pivot.latex(pivot.pivot(compare(find_runs([folder])), METRIC))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 6 and all(row.count("&") == 2 for row in rows)
    assert rows[0] == r"Teacher & cifar\_resnet20, 8 px & cifar\_resnet20, 8 px \\"
    assert re.search(r"losses\.kl\.weight=0\.9 & \$\\mathbf\{\d\d\.\d\d \\pm \d\.\d\d\}\$", text)
    assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 2, 1]


def test_the_command_writes_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main([str(folder), "--pivot"])
    assert left.value.code == 0 and capsys.readouterr().out.startswith(f"| {METRIC}, % |")
    with pytest.raises(SystemExit):
        command.main([str(folder), "--pivot", "test/student/ece", "-o", str(folder / "t.tex")])
    assert (folder / "t.tex").read_text().startswith("% test/student/ece, %\n\\begin{tabular}")
    with pytest.raises(SystemExit) as left:
        command.main([str(folder), "--pivot", "--format", "csv"])
    assert left.value.code == 2 and "--pivot has no format csv: use one of table, markdown, latex" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(folder: Path, tmp_path: Path) -> None:
    text = pivot.latex(pivot.pivot(compare(find_runs([folder])), METRIC))
    (tmp_path / "t.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{text}\\end{{document}}\n"
    )
    subprocess.run(["pdflatex", "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, check=True, capture_output=True)
