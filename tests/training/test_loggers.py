"""What W&B, TensorBoard and MLflow are told, read back from their own files; and that no run depends on them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from kdx.experiment import loggers
from kdx.report import per_class
from kdx.run.folder import RunFolder
from kdx.training.loggers.journal import FinalReport, Journal, RunInfo
from kdx.training.loggers.metrics_file import MetricsFile
from kdx.training.loggers.wandb import Wandb, card

Command = Callable[..., tuple[int, str, str]]
TOGETHER = pytest.mark.xdist_group("loggers")  # one process, so that the run they read is made once
CURVES = ("experiment=ctkd_digits", "trainer.max_epochs=3", "trainer.log_every_n_steps=2", "calibration=temperature")


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of an offline W&B run, as W&B itself reads them."""
    (run,) = folder.glob("wandb/offline-run-*")
    leet = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", run]
    done = subprocess.run(leet, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        record = json.loads(line)
        yield {**record.get(record["type"], {}), "type": record["type"]}


def environment() -> dict[str, str]:
    """That of a shell: without what the tests, or W&B's own service of this process, have put there."""
    ours = ("KDX_", "HYDRA_", "WANDB_SERVICE", "WANDB__SERVICE")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of a learned temperature, told to all three at once."""
    pytest.importorskip("mlflow"), pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("told")
    store = f"uri: 'sqlite:///{folder}/mlflow.db', artifacts: {folder}/mlflow"
    mlflow = f"{{_target_: kdx.training.loggers.mlflow.Mlflow, _partial_: true, {store}}}"
    overrides = [*CURVES, "trainer=cpu", "logger=many", f"+logger.mlflow={mlflow}", "tags=[ours]", "optimizer.lr=2e-3"]
    short = ["teacher.recipe.trainer.max_epochs=2", f"outputs={folder}", f"hydra.run.dir={folder}/run"]
    train = [Path(sys.executable).parent / "kdx-train", *overrides, *short]
    done = subprocess.run(train, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert "is disabled" not in done.stderr
    return folder / "run"


@pytest.mark.long
@TOGETHER
def test_an_offline_wandb_run_holds_everything(told: Path) -> None:
    found = list(records(told))
    (run,) = [record for record in found if record["type"] == "run"]
    assert run["display_name"] == "ctkd_digits calibration=temperature optimizer.lr=2e-3 teacher.recipe.trainer.max_epochs=2 s0"
    assert run["project"] == "kdx" and run["job_type"] == "train" and {"ours", "ctkd_digits"} <= set(run["tags"])
    assert json.loads((told / "wandb.json").read_text())["id"] == run["run_id"]
    updates: dict[str, Any] = {}
    for record in found:
        if record["type"] == "config":
            updates |= record["update"]
    assert updates["temperature"]["low"] == 1.0 and updates["data"]["train_size"] == 300  # resolved, plain, nested
    axes = {record.get("name") or record.get("glob_name"): record for record in found if record["type"] == "metric"}
    assert axes["val/*"]["step_metric"] == "epoch" and "epoch" in axes
    assert axes["val/student/accuracy"]["step_metric"] == "epoch"
    logged = " ".join(json.dumps(record) for record in found if record["type"] == "history")
    curves = ("train/temperature", "train/lambda", "train/gradient_kl", "train/gradient_ce", "train/gradient_ratio", "epoch")
    for name in (*curves, "val/student/entropy", "val/teacher/entropy", "preflight/teacher/ece", "train/loss_kl"):
        assert f'"{name}"' in logged, name
    for name in ("views", "reliability", "disagreement"):
        assert list(told.glob(f"wandb/offline-run-*/files/media/images/{name}*.png")), name
    for name in ("per_class", "disagreement", "reliability"):
        (table,) = told.glob(f"wandb/offline-run-*/files/media/table/{name}*.table.json")
        assert json.loads(table.read_text())["data"], name
    summary = " ".join(json.dumps(record) for record in found if record["type"] == "summary")
    final = json.loads((told / "metrics.json").read_text())
    for name in ("selected/val/student/accuracy", "last/val/student/accuracy", "best/val/student/accuracy", "test/student/ece"):
        assert f'"{name}"' in summary, name
    assert final["selection"]["rule"] in summary
    artifacts = {record["name"]: record for record in found if record["type"] == "artifact"}
    (teacher,) = [name for name in artifacts if name.startswith("teacher-")]
    student = artifacts[f"student-{run['run_id']}"]
    sha = json.loads((told / "teacher.json").read_text())["members"]["teacher"]["sha256"]
    assert teacher == f"teacher-{sha[:12]}" and artifacts[teacher]["use_after_commit"]
    assert not student.get("use_after_commit") and teacher in json.dumps(student["metadata"])
    files = {entry["path"] for entry in student["manifest"]["contents"]}
    assert {"student.safetensors", "student.json", "config.yaml"} == files


@TOGETHER
@pytest.mark.long
@pytest.mark.parametrize(
    "url", ["https://wandb.ai/me/kdx/runs/a1?apiKey=local-123", "https://user:pass@wandb.ai/me/kdx/runs/a1#x"]
)
def test_the_address_of_an_online_wandb_run_is_kept_without_a_key(url: str) -> None:
    online = SimpleNamespace(id="a1", offline=False, url=url)
    assert card(online, "kdx") == {"id": "a1", "project": "kdx", "url": "https://wandb.ai/me/kdx/runs/a1"}
    assert card(SimpleNamespace(id="a1", offline=True, url=None), "kdx") == {"id": "a1", "project": "kdx"}


def test_tensorboard_holds_the_same(told: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(told / "tensorboard"), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert {"train/temperature", "val/student/accuracy", "test/student/ece"} <= set(events.Tags()["scalars"])
    assert {"views", "reliability", "disagreement"} <= set(events.Tags()["images"])
    texts = set(events.Tags()["tensors"])
    assert {f"{name}/text_summary" for name in ("config", "selection", "per_class", "disagreement", "reliability")} <= texts


@pytest.mark.long
@TOGETHER
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # MLflow's affair with SQLAlchemy
def test_mlflow_holds_the_same(told: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{told.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("kdx")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name.startswith("ctkd_digits") and run.info.status == "FINISHED"
    assert run.data.params["temperature.low"] == "1.0" and "selection" in run.data.tags
    assert {"train/temperature", "val/student/ece", "test/student/ece"} <= set(run.data.metrics)
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"views.png", "reliability.png", "per_class.csv", "student.safetensors", "metrics.json"} <= files


def test_a_sweep_that_wandb_steers_types_what_kdx_train_understands(config: Callable[..., DictConfig]) -> None:
    sweep = yaml.safe_load((Path(__file__).parents[2] / "scripts" / "wandb_sweep.yaml").read_text())
    assert sweep["command"] == ["kdx-train", "${args_no_hyphens}"]
    chosen = {name: spec.get("value", spec.get("values", [spec.get("min")])) for name, spec in sweep["parameters"].items()}
    first = {name: value[0] if isinstance(value, list) else value for name, value in chosen.items()}
    cfg = config(*(f"{name}={value}" for name, value in first.items()))  # as W&B writes ${args_no_hyphens}
    assert cfg.temperature["value"] == 1 and cfg.optimizer["lr"] == 3e-4
    assert sweep["metric"]["name"].startswith("selected/val/")  # of the weights that the run selected


def test_a_resumed_run_goes_on_in_the_same_wandb_run(train: Callable[..., Path], tmp_path: Path) -> None:
    first = train("first", "logger=wandb", "trainer.max_epochs=1")
    again = train("again", "logger=wandb", "trainer.max_epochs=2", f"ckpt_path={first}/checkpoints/last.ckpt")
    ids = [json.loads((folder / "wandb.json").read_text())["id"] for folder in (first, again)]
    assert ids[0] == ids[1]
    assert [run.name.rpartition("-")[2] for run in again.glob("wandb/offline-run-*")] == [ids[0]]


def test_a_nan_raises_an_alert_and_marks_the_run_as_failed(command: Command, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    folder = tmp_path / "run"
    overrides = ["experiment=supervised_digits", *tiny, "logger=wandb", "optimizer.lr=1e30", "trainer.log_every_n_steps=1"]
    code, _, err = command("train", *overrides, "trainer.max_epochs=5", f"hydra.run.dir={folder}")
    assert code == 1 and "not finite" in err
    found = list(records(folder))
    assert any(record["type"] == "alert" and "not finite" in json.dumps(record) for record in found)
    assert [record["exit_code"] for record in found if record["type"] == "exit"] == [1]


KILLING = """
import os, signal, subprocess, sys
from kdx.cli.train import main
from kdx.training.loggers.wandb import Wandb

started = Wandb.begin

def begin(self, about):
    started(self, about)
    pattern = f"wandb-core .*--pid {os.getpid()}"
    service = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout
    assert service, "W&B has no service process to kill"
    for pid in service.split():
        os.kill(int(pid), signal.SIGKILL)

Wandb.begin = begin
main()
"""


def test_no_run_depends_on_wandb(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    overrides = ["experiment=supervised_digits", *tiny, "logger=wandb", f"hydra.run.dir={tmp_path}/run"]
    killing = [sys.executable, "-c", KILLING, *overrides]
    done = subprocess.run(killing, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=300)
    assert "has no service" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is disabled") == 1
    assert (tmp_path / "run" / "metrics.json").is_file()


class Recorder(Journal):
    """Keeps what it is told; refuses the names in `refused`."""

    refused: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.told: list[str] = []

    def _tell(self, name: str) -> None:
        if name in self.refused:
            raise OSError(f"No space left on device for {name}")
        self.told.append(name)

    def picture(self, name: str, path: Path) -> None:
        self._tell(name)

    def table(self, name: str, columns: Any, rows: Any) -> None:
        self._tell(name)

    def conclude(self, about: Any, conclusion: Any) -> None:
        self._tell("summary")


@pytest.mark.parametrize(
    ("refused", "told", "disabled"),
    [
        (("b",), "acdef", False),
        (("a", "b", "d"), "cef", False),  # never three in a row
        (("b", "c", "d"), "a", True),  # e and f are not tried
    ],
)
def test_a_call_that_fails_costs_itself_and_three_in_a_row_the_logger(
    caplog: pytest.LogCaptureFixture, refused: tuple[str, ...], told: str, disabled: bool
) -> None:
    recorder = Recorder()
    recorder.refused = refused
    for name in "abcdef":
        recorder.picture(name, Path("x.png"))
    assert "".join(recorder.told) == told
    assert caplog.text.count("No space left on device") == len(refused)
    assert caplog.text.count("is disabled") == int(disabled)
    assert "the run's folder contains all results" in caplog.text


class Unstartable(Recorder):
    def begin(self, about: RunInfo) -> None:
        raise ConnectionError("no server")


def test_a_logger_that_does_not_start_is_not_used(
    config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Journal] = [Unstartable(), Recorder()]
    monkeypatch.setattr(loggers.build, "make", lambda node, path: lambda save_dir: made.pop(0))
    cfg: Any = config("logger=many")
    folder = RunFolder(tmp_path)
    opened = loggers.open_loggers(cfg, folder, loggers.run_info(cfg, folder))
    assert [type(logger).__name__ for logger in opened] == ["MetricsFile", "Recorder"]
    assert caplog.text.count("Unstartable failed at begin (ConnectionError: no server) and is disabled") == 1


CLASSES = ["1", "007", "wrench", ""]  # what people call their classes


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a run whose class names look like numbers and whose last class has no images."""
    tables = {"test": {"student": [[3, 2, 1, 0], [2.5, 1.5, 0.5, 0], [2, 2, 1, 0]]}}
    per_class.write(tmp_path / "per_class.csv", tables, CLASSES)
    for name in ("student.safetensors", "student.json", "config.yaml"):
        (tmp_path / name).write_text("{}")
    return tmp_path


REPORT = {
    "metrics": {"test/student/accuracy": 0.5, "val/student/nll": 1.25},
    "last": {"val/student/nll": 2.0},
    "selection": {"rule": "best_val", "epoch": 1, "text": "epoch 1 of 2"},
}


def test_the_summary_is_first_and_every_column_has_one_type(finished: Path) -> None:
    class Typed(Recorder):
        types: list[set[type]]

        def table(self, name: str, columns: Any, rows: Any) -> None:
            super().table(name, columns, rows)
            self.types = [{type(cell) for cell in column} for column in zip(*rows, strict=True)]
            assert [row[2] for row in rows] == CLASSES

    (finished / "reliability.png").write_bytes(b"")
    recorder = Typed()
    loggers.conclude([recorder], about(finished), REPORT, None)
    assert recorder.told == ["summary", "reliability", "per_class"]
    assert recorder.types == [{str}, {int}, {str}, {int}, {float, type(None)}, {float, type(None)}]


def about(folder: Path) -> RunInfo:
    return RunInfo(folder, "run", "train", "val/student/nll", "min", {"name": "run"})


def test_wandb_takes_classes_named_like_numbers_and_keeps_the_numbers(
    finished: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb(str(finished))
    wandb.begin(about(finished))
    keep = Wandb._keep

    def refuse(self: Wandb, about: RunInfo, conclusion: FinalReport) -> None:
        keep(self, about, conclusion)
        raise OSError("artifact store is full")

    monkeypatch.setattr(Wandb, "_keep", refuse)
    loggers.conclude([wandb], about(finished), REPORT, 1.25)
    loggers.close([wandb], failed=False)
    assert "artifact store is full" in caplog.text and "is disabled" not in caplog.text
    (table,) = finished.glob("wandb/offline-run-*/files/media/table/per_class*.table.json")
    assert [row[2] for row in json.loads(table.read_text())["data"]] == CLASSES
    found = list(records(finished))
    history = " ".join(json.dumps(record) for record in found if record["type"] == "history")
    summary = " ".join(json.dumps(record) for record in found if record["type"] == "summary")
    for text, names in (
        (history, ["selected/val/student/nll"]),
        (summary, ["selected/val/student/nll", "test/student/accuracy"]),
    ):
        assert all(f'"{name}"' in text for name in names), text


def curve(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without empty cells."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_each_row_is_in_the_file_at_once_and_the_file_is_whole_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = MetricsFile(tmp_path)
    curves.log_metrics({"train/loss": 2.0}, step=1)
    assert curve(tmp_path) == [{"train/loss": "2.0", "step": "1"}]
    curves.log_metrics({"val/accuracy": 0.5}, step=1)  # a new column
    curves.log_metrics({"train/loss": 1.5}, step=2)
    expected = [{"train/loss": "2.0", "step": "1"}, {"val/accuracy": "0.5", "step": "1"}, {"train/loss": "1.5", "step": "2"}]
    assert curve(tmp_path) == expected

    def killed(*paths: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        curves.log_metrics({"another": 1.0}, step=3)
    assert curve(tmp_path) == expected


@pytest.mark.parametrize("cut", ["", "7,0.1", '7,"0.'])
def test_a_resumed_run_keeps_the_rows_up_to_its_checkpoint(tmp_path: Path, cut: str) -> None:
    first = MetricsFile(tmp_path)
    for step in range(6):
        first.log_metrics({"train/loss": 1.0 / (1 + step)}, step=step)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(cut)  # the process was killed while it wrote a row
    again = MetricsFile(tmp_path)
    assert len(curve(tmp_path)) >= 6  # nothing is lost before the first number
    again.resume(3)
    again.log_metrics({"train/loss": 9.0}, step=4)
    assert [row["step"] for row in curve(tmp_path)] == ["0", "1", "2", "3", "4"]
    assert curve(tmp_path)[-1]["train/loss"] == "9.0"
