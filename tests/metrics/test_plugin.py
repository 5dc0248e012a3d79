"""A metric from a folder outside the repository: one class, one YAML, and it is everywhere."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdx.compare.comparison import compare
from kdx.compare.metric_names import direction
from kdx.compare.runs import find_runs
from kdx.config import plugins
from kdx.config.schema import RunConfig

Command = Callable[..., tuple[int, str, str]]

CODE = """
import torch
from kdx.metrics.base import EvaluationMetric, ExampleMetric

class Surprise(ExampleMetric):
    higher_is_better, needs_label = False, True

    def per_example(self, batch):
        return 1 - batch.probs.gather(-1, batch.label[:, None])[:, 0]

class Gap(ExampleMetric):
    needs_teacher = True

    def per_example(self, batch):
        return (batch.probs.max(-1).values - batch.teacher_log_probs.exp().max(-1).values).abs()

class Wrong(ExampleMetric):
    def per_example(self, batch):
        return batch.probs
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module and the YAML files of its metrics."""
    folder = tmp_path / "mine"
    (folder / "metrics").mkdir(parents=True)
    (folder / "plugged_metrics.py").write_text(CODE)
    for name in ("surprise", "gap", "wrong"):
        line = f"{name}: {{_target_: plugged_metrics.{name.title()}}}\n"
        (folder / "metrics" / f"{name}.yaml").write_text(line)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for variable in (plugins.FOLDERS, plugins.TRUST):
        monkeypatch.setenv(variable, "")  # so that what a test sets is undone
        monkeypatch.delenv(variable)
    yield folder
    sys.modules.pop("plugged_metrics", None)


def metrics_of(file: Path) -> dict[str, float]:
    content = json.loads(file.read_text())
    return dict(content.get("metrics") or content["clean"])


def test_it_is_measured_logged_monitored_compared_and_evaluated(
    mine: Path, train: Callable[..., Path], command: Command
) -> None:
    chosen_by = ("monitor=val/student/surprise", "monitor_mode=min")
    folder = train("run", "metrics=[surprise,gap,margin]", *chosen_by, f"--config-dir={mine}")
    content = json.loads((folder / "metrics.json").read_text())
    metrics = content["metrics"]
    whos = ("student", "student_scaled", "teacher", "teacher_raw", "teacher_at_student_resolution")
    networks = {f"{split}/{who}/{name}" for split in ("val", "test") for who in whos for name in ("surprise", "margin")}
    pairs = {"val/gap", "test/gap"}
    assert networks | pairs | {"preflight/teacher/surprise"} <= metrics.keys()
    assert not {name for name in metrics if name.endswith("/gap")} - pairs
    assert {content["higher_is_better"][name] for name in ("surprise", "margin")} == {False, True}
    assert content["higher_is_better"]["gap"] is None
    assert content["selection"]["monitor"] == "val/student/surprise"
    with (folder / "metrics.csv").open(newline="") as file:
        assert {"val/student/surprise", "val/teacher/margin", "val/gap"} <= set(next(csv.reader(file)))

    comparison = compare(find_runs([folder]))
    assert {"test/student/surprise", "test/student/margin", "test/gap"} <= set(comparison.metrics)
    known = comparison.higher_is_better
    assert [direction(f"test/student/{name}", known) for name in ("surprise", "margin", "gap")] == ["less", "more", ""]

    assert command("evaluate", f"run={folder}", "split=test", f"--config-dir={mine}", "trust=[plugged_metrics]")[0] == 0
    again = metrics_of(folder / "evaluation-test.json")
    assert {name: again[name] for name in networks | pairs if name.startswith("test/")} == {
        name: metrics[name] for name in networks | pairs if name.startswith("test/")
    }
    assert (
        command(
            "evaluate",
            f"run={folder}",
            "shift=noise",
            "severities=[5]",
            "name=shifted",
            f"--config-dir={mine}",
            "trust=[plugged_metrics]",
        )[0]
        == 0
    )
    shifted = json.loads((folder / "evaluations" / "shifted.json").read_text())
    assert shifted["clean"]["test/student/surprise"] == pytest.approx(metrics["test/student/surprise"])
    assert shifted["shift"][0]["metrics"]["test/student/surprise"] > metrics["test/student/surprise"]


def test_the_teacher_of_a_run_is_the_same_whatever_the_run_measures(config: Callable[..., RunConfig]) -> None:
    from kdx.experiment.teacher import key, teacher_run

    def fingerprint(*overrides: str) -> str:
        cfg = config("experiment=cqkd_digits", *overrides)
        return key(teacher_run(cfg, cfg.teacher), {}, cfg.data.source)

    assert fingerprint() == fingerprint("metrics=[margin]")
    own = "+teacher.recipe.metrics={margin: {_target_: kdx.metrics.margin.Margin}}"
    assert fingerprint(own) == fingerprint("monitor=val/student/nll", "monitor_mode=min")
    assert fingerprint(own, "teacher.recipe.monitor=val/student/margin") != fingerprint(own)


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["metrics=[wrong]"], ["metrics.wrong: returned shape [3, 10]; expected [3] (one value per example) or a number"]),
        (["metrics=[margn]"], ["margn", "margin"]),
        (["metrics=[top3]", "metrics.top3.kk=2"], ["metrics.top3.kk", "k"]),
        (["metrics=[top3]", "metrics.top3.k=10"], ["metrics.top3 needs at least 11 classes, found 10: remove top3"]),
        (["monitor=val/student/surprize"], ["Unknown metric monitor=val/student/surprize", "metrics=[surprize]"]),
        (["metrics=[surprise]", "monitor=val/student/surprize"], ["Did you mean 'val/student/surprise'?"]),
    ],
)
def test_a_mistake_is_answered_before_anything_is_trained(
    mine: Path, command: Command, tmp_path: Path, overrides: list[str], messages: list[str]
) -> None:
    code, _, err = command("train", f"--config-dir={mine}", "logger=none", f"hydra.run.dir={tmp_path}/run", *overrides)
    assert code == 2, err
    assert all(message in err for message in messages), err
    assert not list(tmp_path.glob("run/*.csv"))


def test_it_is_named_among_the_metrics_that_claims_can_read(config: Callable[..., RunConfig]) -> None:
    from kdx.evidence.run_metrics import check_metric
    from kdx.experiment.build import parts

    cfg = config("experiment=cqkd_digits", "metrics=[margin,nontarget_kl]")
    for name in ("test/student/margin", "val/teacher_raw/margin", "test/nontarget_kl", "val/student/margin@end"):
        check_metric(name, parts(cfg), "claims.mine")
    with pytest.raises(ValueError, match="unknown metric 'test/student/top3'"):
        check_metric("test/student/top3", parts(cfg), "claims.mine")
