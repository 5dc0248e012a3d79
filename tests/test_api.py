"""The Python API does what the commands do, and leaves the process as it was."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import kdx
from kdx import api
from kdx.data.digits import Digits
from kdx.experiment.data import carve_splits

TINY = ("logger=none", "trainer=cpu", "trainer.max_epochs=2", "teacher.recipe.trainer.max_epochs=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> kdx.Run:
    folder = tmp_path_factory.mktemp("api")
    return kdx.train("experiment=cqkd_digits", *TINY, f"outputs={folder}/outputs", folder=folder / "run", quiet=True)


def test_a_run_is_what_its_folder_holds(run: kdx.Run) -> None:
    assert run.path == kdx.open_run(run.path).path
    assert run.config.resolution.student == 4 and run.config.data.train_size == 100
    assert 0 < run.metrics["test/student/accuracy"] < 1
    assert set(run.baselines) == {"scratch"}
    baseline = run.baselines["scratch"]
    assert baseline.config.baseline == "scratch" and baseline.config.teacher is None
    assert baseline.config.trainer == run.config.trainer and baseline.config.data == run.config.data


def test_curves_are_a_table_with_pandas_and_arrays_without(run: kdx.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    table = run.curves()
    assert table["val/student/accuracy"].count() == 2
    monkeypatch.setitem(sys.modules, "pandas", None)
    curves = run.curves()
    accuracy = curves["val/student/accuracy"]
    assert np.count_nonzero(np.isfinite(accuracy)) == 2 and len(accuracy) == len(curves["train/loss"])


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_network_of_a_run_predicts_what_the_run_measured(run: kdx.Run, role: str) -> None:
    """From whole images at 8 px, as bytes and as floats: the accuracy of metrics.json."""
    images = carve_splits(run.config.data, Digits().splits())["test"]
    pixels = torch.stack([torch.from_numpy(images[i]) for i in range(len(images))])
    label = torch.from_numpy(images.labels)
    network = run.student() if role == "student" else run.teacher()
    assert isinstance(network, torch.nn.Module) and sum(p.numel() for p in network.parameters()) > 10_000
    with torch.no_grad():
        for given in (pixels, pixels / 255):
            accuracy = (network(given).argmax(-1) == label).double().mean().item()
            assert accuracy == pytest.approx(run.metrics[f"test/{role}/accuracy"], abs=1e-9)
        assert network(torch.rand(2, 1, 31, 17)).shape == (2, 10)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 1, 8, 8), 16.0), "Unknown pixel range: expected uint8 or floats in"),
        (torch.zeros(1, 8, 8), "add a batch dimension"),
        (torch.zeros(2, 3, 8, 8), r"Expected images with 1 channels, got \[2, 3, 8, 8\]; convert them, e.g. with images.mean"),
        (torch.zeros(2, 4, 8, 8), r"Expected images with 1 channels, got \[2, 4, 8, 8\]$"),
    ],
)
def test_images_of_another_kind_are_refused(run: kdx.Run, images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run.student()(images)


def test_evaluate_gives_the_runs_own_numbers_and_others(run: kdx.Run) -> None:
    again = kdx.evaluate(run, quiet=True)
    assert again["test/student/nll"] == run.metrics["test/student/nll"]
    shifted = kdx.evaluate(run.path, "split=val", "shift=contrast", "severities=[5]")
    assert {"val/student/accuracy", "contrast_5/val/student/accuracy"} <= set(shifted)
    assert shifted["val/student/accuracy"] == pytest.approx(run.metrics["val/student/accuracy"])


def test_a_composed_config_trains(run: kdx.Run, tmp_path: Path) -> None:
    config = kdx.compose("experiment=supervised_digits", *TINY[:3], f"outputs={tmp_path}")
    with pytest.raises(AttributeError):
        config.seed = 3  # type: ignore[misc]  # frozen
    trained = kdx.train(config, quiet=True)
    assert trained.path.parent == tmp_path / "supervised_digits"
    with pytest.raises(ValueError, match="no teacher: it was trained with teacher=none"):
        trained.teacher()


def test_a_run_is_read_from_any_folder(run: kdx.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its teacher was named by a relative path."""
    monkeypatch.chdir(run.path.parent)
    teacher = next(run.path.parent.glob("outputs/teachers/*/student.safetensors")).relative_to(run.path.parent)
    trained = kdx.train("experiment=cqkd_digits", *TINY[:3], f"teacher.checkpoint={teacher}", "baselines=[]", quiet=True)
    path = trained.path.absolute()
    monkeypatch.chdir(tmp_path)
    again = kdx.open_run(path)
    assert again.student()(torch.rand(1, 1, 8, 8)).shape == again.teacher()(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    assert kdx.evaluate(again, quiet=True)["test/student/nll"] == again.metrics["test/student/nll"]


def test_mistakes_are_value_errors_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Did you mean optimizer.lr=0.1"):
        kdx.compose("lr=0.1")
    with pytest.raises(ValueError, match="Did you mean 'cqkd_digits'"):
        kdx.train("experiment=cqkd_digit")
    with pytest.raises(ValueError, match=r"has no config.yaml; expected the folder of a finished run"):
        kdx.open_run(tmp_path)
    with pytest.raises(ValueError, match=r"pass the overrides to kdx.compose"):
        kdx.train(kdx.compose("experiment=none"), "seed=1")
    with pytest.raises(ValueError, match="an option of the commands: use config_dir='mine'"):
        kdx.train("--config-dir=mine")
    with pytest.raises(ValueError, match=r"seed=1,2 has several values: call kdx.train once per value"):
        kdx.train("seed=1,2")
    with pytest.raises(ValueError, match="Expected overrides as strings, got a dict: write 'seed=1', 'name=x'"):
        kdx.compose({"seed": 1, "name": "x"})
    with pytest.raises(ValueError, match="got a int: write 'seed=1'"):
        kdx.train(5)
    assert kdx.compose("data.train_size=None").data.train_size is None
    with pytest.raises(AttributeError, match="the API is Run, compose"):
        kdx.trian


def test_messages_are_printed_unless_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a script that has not configured logging; otherwise the script's handlers print them."""
    log = logging.getLogger("kdx")
    monkeypatch.setattr(log, "propagate", False)  # pytest configures the root logger
    for own, shown, printed in (([], True, "hello\n"), ([], False, ""), ([logging.NullHandler()], True, "")):
        monkeypatch.setattr(log, "handlers", own)
        with api._caller_state_kept(), api._messages_shown(shown):
            log.info("hello")
        assert capsys.readouterr().err == printed and log.handlers == own


def test_global_state_is_left_alone(run: kdx.Run, tmp_path: Path) -> None:
    """Neither Hydra's state nor the levels of loggers change; an app of Hydra may call kdx."""
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO)
    kdx.train("experiment=supervised_digits", *TINY[:3], f"outputs={tmp_path}", quiet=True)
    assert logging.getLogger("pytorch_lightning").level == logging.INFO
    assert not GlobalHydra.instance().is_initialized()


def test_import_is_light() -> None:
    code = "import sys, kdx; kdx.compose('seed=1'); assert not {'torch', 'timm', 'pytorch_lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
