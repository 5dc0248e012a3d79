"""kdx-benchmark: what it is asked, what it computes from what its processes measure, and its tables."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdx.benchmarks import bare_process, classes, data_path, machine, session, tables
from kdx.benchmarks.request import KEPT, PARTS, SETTINGS, VARIANTS, BenchmarkRequest, request
from kdx.benchmarks.runs import BenchmarkError, in_process
from kdx.config.errors import ConfigError

Command = Callable[..., tuple[int, str, str]]
NETWORKS = {
    "student": {"architecture": "cifar_resnet8", "num_classes": 10, "shape": [4, 1, 8, 8]},
    "teacher": {"architecture": "cifar_resnet20", "num_classes": 10, "shape": [4, 1, 8, 8]},
}


def steps(ms: float) -> dict[str, Any]:
    """What BareLoop writes."""
    shares = dict.fromkeys(tables.SHARES, 1 / len(tables.SHARES))
    numbers = {"kdx_ms": ms, "bare_ms": 2 * ms, "ratio": 2.0, "quartiles": [1.5, 2.5], "steps": 9, "start_seconds": 3.0}
    with_data = {"bare_with_data_ms": 3 * ms, "ratio_with_data": 3.0, "quartiles_with_data": [2.5, 3.5]}
    return {**numbers, **with_data, "shares": shares, "networks": NETWORKS}


class FakeSetting:
    """A setting whose processes do nothing, and that remembers with which words they were started."""

    def __init__(self, name: str, words: Sequence[str], root: Path) -> None:
        self.name, self.root = name, root
        self.trained: list[tuple[str, ...]] = []

    def train(self, variant: Sequence[str]) -> dict[str, Any]:
        self.trained.append(tuple(variant))
        return {"images_per_second": 100.0 * len(self.trained), "peak_memory_mb": 500.0}

    def beside_bare(self, variant: Sequence[str]) -> dict[str, Any]:
        return steps(5.0 if "teacher_cache=auto" in variant else 10.0)

    def bare_alone(self, networks: dict[str, Any]) -> dict[str, float]:
        assert networks == NETWORKS
        return {"start_seconds": 2.0, "peak_memory_mb": 400.0}


@pytest.fixture
def asked() -> BenchmarkRequest:
    return BenchmarkRequest(["digits"], ["safe", KEPT], [], 2, None)


def test_logits_are_kept_before_the_run_that_reads_them_is_measured(asked: BenchmarkRequest, tmp_path: Path) -> None:
    setting: Any = FakeSetting("digits", [], tmp_path)
    found = session.measure(setting, asked)
    assert setting.trained[1] == VARIANTS[KEPT] and "trainer.devices=2" in setting.trained[2]
    assert list(found.variants) == ["safe", KEPT] and found.images_per_second == {1: 200.0, 2: 300.0}
    assert found.start_seconds == {"kdx": 3.0, "bare": 2.0} and found.memory_mb == {"kdx": 500.0, "bare": 400.0}


def test_the_tables_have_the_numbers_and_the_file_has_all(
    asked: BenchmarkRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "Setting", FakeSetting)
    monkeypatch.setattr(machine, "kernel_flops", lambda: 8e9)
    file = tmp_path / "numbers.json"
    session.benchmark(BenchmarkRequest(asked.settings, asked.variants, [], 1, str(file)))
    shown, numbers = capsys.readouterr().out, json.loads(file.read_text())
    assert "10.0 ms" in shown and "2.50-3.50" in shown and "3.0 s" in shown and "8, 8 GFLOP/s" in shown
    run = numbers["runs"]["digits"]
    assert run["kernel_flops"] == [8e9, 8e9] and run["variants"]["safe"]["ratio"] == 2.0
    assert f"{run['step_flops'] / 0.010 / 8e9:.0%}" in shown  # of the run that computes the teacher, not of `kept`
    assert numbers["machine"]["threads"] >= 1 and "torch" in numbers["machine"]["versions"]


def test_a_benchmark_that_is_broken_off_keeps_the_settings_that_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> Iterator[tuple[str, str, str]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "Setting", FakeSetting)
    monkeypatch.setattr(machine, "kernel_flops", lambda: 8e9)
    monkeypatch.setitem(session.ROWS, "classes", interrupted)
    file = tmp_path / "numbers.json"
    with pytest.raises(KeyboardInterrupt):
        session.benchmark(BenchmarkRequest(["classes", "digits"], ["safe"], [], 1, str(file)))
    assert "2.50-3.50" in capsys.readouterr().out and list(json.loads(file.read_text())["runs"]) == ["digits"]


def test_flops_of_a_step_are_three_passes_of_the_student_and_one_of_the_teacher() -> None:
    network = {"architecture": "resnet18", "num_classes": 1000, "shape": [2, 3, 224, 224]}
    assert session.step_flops({"student": network}) == pytest.approx(2 * 2 * 3 * 1.814e9, rel=1e-3)
    both = session.step_flops({"student": network, "teacher": network})
    assert both == pytest.approx(2 * 2 * 4 * 1.814e9, rel=1e-3)


def test_mfu_is_the_share_of_what_the_gpu_can_reach() -> None:
    one = session.Measured({"safe": steps(10.0)}, {"kdx": 1, "bare": 1}, {"kdx": 1, "bare": 1}, {1: 1}, 1e9, (1e11, 1e11))
    console = Console(width=160, record=True)
    console.print(tables.processes({"x": one}, 1e12))
    assert "10.0%" in console.export_text()  # 1e9 FLOPs in 10 ms, of 1e12 a second


def test_the_bare_loop_alone_is_measured() -> None:
    found = bare_process.train(NETWORKS, time.time() - 5)
    assert 5 < found["start_seconds"] < 60 and found["peak_memory_mb"] > 50


def test_parts_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "CLASSES", (10,))
    assert [what for what, *_ in classes.rows()] == [*(f"loss {name}, K = 10" for name in classes.LOSSES), "metrics, K = 10"]
    assert data_path.draw_row()[1].endswith(" ms") and set(PARTS) < set(SETTINGS)


def test_a_failed_process_ends_with_its_last_lines() -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)json.tool nowhere.json failed:.*nowhere.json"):
        in_process("json.tool", "nowhere.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": ["digit"]}, "Unknown setting 'digit'. Did you mean 'digits'?"),
        ({"variants": ["saf"]}, "Unknown variant 'saf'. Did you mean 'safe'?"),
        ({"settings": []}, "Nothing to measure"),
        ({"ranks": 0}, "ranks"),
        ({"words": ["seed"]}, "expected KEY=VALUE"),
        ({"to": "/no/such/folder/file"}, "existing folder"),
        ({"rank": 2}, "Did you mean 'ranks'?"),
    ],
)
def test_mistakes_are_answered(changes: dict[str, Any], message: str) -> None:
    valid = {"settings": ["digits"], "variants": ["safe"], "words": [], "ranks": 1, "to": None}
    with pytest.raises(ConfigError) as error:
        request({**valid, **changes})
    assert message in str(error.value)


def test_settings_are_words_and_words_of_kdx_train_are_checked(command: Command) -> None:
    code, out, _ = command("benchmark", "digits", "data", "--cfg", "job")
    assert code == 0 and "settings:\n- digits\n- data\n" in out
    code, _, err = command("benchmark", "digits", "words=['optimizer.lrr=1']")
    assert code == 2 and "Did you mean 'lr'?" in err


@pytest.mark.minutes
def test_a_setting_is_measured_in_processes_of_its_own(command: Command, tmp_path: Path) -> None:
    short = "words=['trainer.max_epochs=4']"
    code, _, err = command("benchmark", "funmatch", "variants=[kept]", short, f"to={tmp_path}/numbers.json")
    assert code == 0, err
    run = json.loads((tmp_path / "numbers.json").read_text())["runs"]["funmatch"]
    assert run["variants"]["kept"]["kdx_ms"] > 0 and run["memory_mb"]["kdx"] > run["memory_mb"]["bare"] / 2 > 50
