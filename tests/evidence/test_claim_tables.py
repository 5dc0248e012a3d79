"""Tables say what was found: numbers to as many digits as they carry, every seed in the data, nothing of what was not run."""

from __future__ import annotations

import csv
import io
import json

import pytest

from kdx.compare.statistics import Region
from kdx.evidence.claim_tables import as_data, claims_csv, claims_table, number, systems_table
from kdx.evidence.findings import ClaimComparison, Finding

GAIN = ClaimComparison("kd − labels", "test/student/accuracy", {0: 0.02, 1: 0.03, 2: 0.04}, Region(low=0))
NOISE = ClaimComparison("kd − other", "test/student/accuracy", {0: -0.02, 1: 0.03, 2: 0.0}, Region(low=0))
HELD = Finding("cqkd", "better", "CQKD", "Distillation | helps.", (GAIN,))
OPEN = Finding("cqkd", "best", "CQKD", "It is the best.", (GAIN, NOISE))
ABSENT = Finding("cqkd", "never", "CQKD", "Nobody ran it.", missing="kd seed 2: RuntimeError: no memory")


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (0.91234, None, "0.912"),
        (-0.0123, None, "−0.0123"),
        (12.345, None, "12.3"),
        (1234.5, None, "1234"),
        (0.0, None, "0.0000"),
        (0.9123, 0.0101, "0.912 ± 0.010"),
        (-0.00123, 0.0456, "−0.0012 ± 0.0456"),
        (15.6212, 0.0, "15.6 ± 0.0"),
    ],
)
def test_number(value: float, spread: float | None, text: str) -> None:
    assert number(value, spread) == text


def test_verdicts_come_from_the_comparisons() -> None:
    assert [finding.verdict for finding in (HELD, OPEN, ABSENT)] == ["holds", "undecided", "not run"]


def test_claims_table_has_a_row_per_comparison_and_as_many_cells_in_each() -> None:
    lines = claims_table([HELD, OPEN, ABSENT]).splitlines()
    assert len(lines) == 2 + 1 + 2 + 1
    assert {line.replace("\\|", "").count("|") for line in lines} == {8}
    assert "**holds**" in lines[2] and "0.0300 ± 0.0100" in lines[2] and "> 0" in lines[2]
    assert "undecided" in lines[3] and "(holds)" in lines[3] and "(undecided)" in lines[4]
    assert "no memory" in lines[5] and "not run" in lines[5]


def test_csv_has_both_intervals() -> None:
    rows = list(csv.DictReader(io.StringIO(claims_csv([HELD, OPEN, ABSENT]))))
    assert [row["verdict"] for row in rows] == ["holds", "undecided", "undecided", "not run"]
    assert float(rows[0]["low"]) == pytest.approx(0.03 - 4.302653 * 0.01 / 3**0.5, abs=1e-6)
    assert float(rows[0]["bootstrap_low"]) == 0.02  # at n = 3 no interval of resampled means can be wider
    assert rows[3]["mean"] == ""


def test_data_has_every_seed_and_is_json() -> None:
    data = json.loads(json.dumps([as_data(finding) for finding in (HELD, ABSENT)]))
    assert data[0]["comparisons"][0]["by_seed"] == {"0": 0.02, "1": 0.03, "2": 0.04}
    assert data[1]["comparisons"] == [] and data[1]["verdict"] == "not run"


def test_systems_table_leaves_what_a_system_lacks_empty() -> None:
    text = systems_table({"kd": {"accuracy": [0.9, 0.92], "kl": [0.1, 0.3]}, "labels": {"accuracy": [0.8, 0.8]}})
    assert text.splitlines()[2] == "| kd | 2 | 0.910 ± 0.014 | 0.200 ± 0.141 |"
    assert text.splitlines()[3] == "| labels | 2 | 0.800 ± 0.000 |  |"


def test_the_claimed_region_in_words() -> None:
    regions = [Region(low=0), Region(high=0.01), Region(-1, 1)]
    assert [ClaimComparison("", "", {}, region).claim for region in regions] == ["> 0", "< 0.01", "in (-1, 1)"]
