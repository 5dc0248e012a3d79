"""Mistakes a user makes: the message names the key and the remedy, the exit status is 2, nothing was read or written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

Command = Callable[..., tuple[int, str, str]]

RESNET = ["network@teacher.network=timm", "teacher.network.architecture=resnet18", "teacher.network.pretrained=true"]
MISTAKES = {
    "unknown root key": (["sed=1"], "Unknown key 'sed'", "'seed'"),
    "unknown root key through +": (["+typo=1"], "Unknown key 'typo'", "seed"),
    "unknown leaf key": (["losses.kl.wieght=1"], "Unknown key 'losses.kl.wieght'", "'weight'"),
    "unknown leaf key through +": (["+losses.kl.wieght=1"], "Unknown key 'losses.kl.wieght'", "'weight'"),
    "unknown trainer key through +": (["+trainer.max_epoch=3"], "'trainer.max_epoch'", "Did you mean trainer.max_epochs=3?"),
    "unknown teacher key through +": (["+teacher.chekpoint=x"], "'teacher.chekpoint'", "'checkpoint'"),
    "unknown recipe key": (["+teacher.recipe.optimiser.lr=3"], "'teacher.recipe.optimiser'", "'optimizer'"),
    "unknown option": (["data=digit"], "Unknown option 'digit' for config group 'data'", "'digits'"),
    "unknown loss": (["losses=[kll]"], "Unknown option 'kll' for config group 'losses'", "'kl'"),
    "unknown experiment": (
        ["experiment=cqkd_digit"],
        "'cqkd_digit' for config group 'experiment'",
        "'cqkd_digits'",
    ),
    "unknown target": (["callbacks.best._target_=kdx.nope.X"], "callbacks.best._target_", "No module 'kdx.nope'"),
    "wrong type in the spine": (["seed=abc"], "seed", "Integer"),
    "wrong type in a leaf": (["temperature.value=abc"], "temperature.value=abc", "number"),
    "wrong type for torch": (["optimizer.lr=x"], "optimizer", "'str'"),
    "temperature 0": (["temperature.value=0"], "temperature.value=0", "greater than 0"),
    "resolution 3": (["resolution.student=3"], "resolution.student=3", "greater than or equal to 4"),
    "negative weight": (["losses.kl.weight=-1"], "losses.kl.weight=-1", "greater than or equal to 0"),
    "a batch of more than there is": (["data.batch_size=512"], "for 100 training images", "data.batch_size=100 or less"),
    "batch of 0": (["data.batch_size=0"], "data.batch_size=0", "greater than or equal to 1"),
    "too many processes": (["trainer=cpu", "trainer.devices=99"], "trainer.devices=99", "CPU cores"),
    "no GPU": (["trainer=gpu"], "no GPU", "trainer=cpu"),
    "unknown architecture": (["student.architecture=resnet1888"], "'resnet1888'", "resnet18"),
    "a key without a file": (["teacher.key=ema"], "teacher.key=ema", "teacher.checkpoint=FILE"),
    "a class map to train with": (["teacher.class_map=m.json"], "teacher.class_map=m.json", "teacher.checkpoint=FILE"),
    "a class map to finetune with": (
        ["teacher=finetune", *RESNET, "teacher.class_map=m.json"],
        "teacher.class_map=m.json has no effect",
        "teacher.class_map=null",
    ),
    "missing class map": ([*RESNET, "teacher.class_map=/nope.json"], "teacher.class_map=/nope.json", "use an existing path"),
    "a folder without a network": (["student.architecture=local-dir:/nope"], "No config.json", "save_for_hf"),
    "missing teacher": (["teacher.checkpoint=/nope.safetensors"], "/nope.safetensors", "use an existing path"),
    "missing checkpoint": (["ckpt_path=/nope.ckpt"], "/nope.ckpt", "use an existing path"),
    "no teacher to learn from": (["experiment=none", "teacher=none"], "losses.kl", "teacher=online"),
    "no teacher to calibrate": (["teacher=none"], "Cannot calibrate without a teacher", "calibration=none"),
    "fewer pixels of a file than a network sees": (
        ["data.jpeg_px=4"],
        "smaller than the 8 px that a network sees",
        "data.jpeg_px=16",
    ),
    "a teacher nobody asks": (["losses=[ce]", "experiment=none"], "No loss uses the teacher", "teacher=none"),
    "no temperature": (["experiment=none", "temperature=none"], "losses.kl", "temperature=constant"),
    "mixing separate views": (["experiment=none", "mixing=mixup", "views=ind"], "mixing", "views=same"),
    "impossible crop": (["crop@views.crop=inception", "views.crop.area=[0.5,0.1]"], "views.crop", "interval"),
    "too few images": (["data.train_size=100000"], "data.train_size=100000", "899 images"),
    "a cohort with a teacher": (["experiment=none", "peers=dml"], "Peers learn without a teacher", "teacher=none"),
    "a cohort that learns from labels": (
        ["experiment=none", "peers=dml", "teacher=none", "losses=[ce]"],
        "No loss uses the peers",
        "peers=none",
    ),
    "a run that is not there": (["teacher=run", "teacher.run=/nope"], "/nope is not a finished run", "student.json"),
    "no run named": (["teacher=run"], "Missing required option", "teacher.run=FOLDER"),
    "unknown key of a member": (["teacher=ensemble", "+teacher.members.a.chekpoint=x"], "chekpoint", "'checkpoint'"),
    "unknown combination": (["teacher=ensemble", "teacher.combine=mean"], "teacher.combine=mean", "'logits'"),
    "unknown architecture of a member": (
        ["teacher=ensemble", "teacher.members.b.network.architecture=resnet1888"],
        "teacher.members.b.network.architecture",
        "resnet18",
    ),
    "features of an ensemble": (["experiment=none", "teacher=ensemble", "losses=[hint]"], "losses.hint", "teacher=online"),
    "features of peers": (["experiment=none", "peers=dml", "teacher=none", "losses=[ofa]"], "losses.ofa", "peers=none"),
    "a student with one head": (["experiment=none", "losses=[deit]"], "Unknown module 'head", "Available: pooled"),
    "features of stored crops": (["experiment=none", "views=fix_ic_ens", "losses=[hint]"], "losses.hint", "views=ind_ic"),
    "one class per mixed image": (["experiment=none", "mixing=mixup", "losses=[dkd]"], "losses.dkd", "mixing=none"),
    "a teacher that the experiment changes": (
        ["experiment=ctkd_cifar100", "teacher=none"],
        "the selected teacher does not have",
        "teacher=online",
    ),
    "an initial student that is not there": (["student.init=/nope.pth"], "student.init=/nope.pth", "use an existing path"),
    "label smoothing of 1": (["losses=[ce]", "losses.ce.loss.label_smoothing=1.0"], "label_smoothing=1.0", "less than 1"),
    "key inside none": (["experiment=supervised_digits", "teacher.checkpoint=x"], "`teacher` is `none`", "e.g. teacher=online"),
    "key inside none, untyped": (["mixing.alpha=1"], "Cannot set `mixing.alpha`: config group `mixing` is `none`", "mixing="),
    "broken interpolation": (["name=${nope}"], "nope", "nope"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="the messages about devices differ where there is a GPU")
@pytest.mark.parametrize(("overrides", "what", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistake_is_told_with_its_remedy(command: Command, overrides: list[str], what: str, remedy: str) -> None:
    code, _, err = command("train", "logger=none", *overrides)
    assert code == 2
    told = err.strip().splitlines()[-1]
    assert told.startswith("kdx: ") and what in told and remedy in told
    assert "Traceback" not in err
    assert not list(Path("outputs").glob("*/*/checkpoints"))


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def _file(kind: str) -> Path:
    path = Path(f"teacher.{'pth' if kind in ('code', 'text') else 'safetensors'}")
    if kind == "code":
        path.write_bytes(pickle.dumps({"w": _Payload()}))
    elif kind == "text":
        path.write_text("these are not weights")
    elif kind == "classes":
        save_file({"fc.weight": torch.zeros(100, 64), "fc.bias": torch.zeros(100)}, path)
    elif kind == "shapes":
        save_file({"conv1.weight": torch.zeros(16, 3, 3, 3), "fc.weight": torch.zeros(10, 64)}, path)
    elif kind == "truncated":
        save_file({"fc.weight": torch.zeros(10, 64)}, path)
        path.write_bytes(path.read_bytes()[:-100])
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    {
        "code": ["Unsafe weight file", "safetensors"],
        "text": ["not a weight file", "copy it again"],
        "truncated": ["damaged", "copy it again"],
        "classes": ["100 classes", "has 10"],
        "shapes": ["conv1.weight is [16, 3, 3, 3] in the file and [16, 1, 3, 3] in the network", "Set the architecture"],
    }.items(),
)
def test_bad_teacher_checkpoint_is_refused(command: Command, kind: str, told: list[str]) -> None:
    code, _, err = command("train", "logger=none", f"teacher.checkpoint={_file(kind)}")
    assert code == 2
    assert all(words in err for words in told), err
    assert not Path("executed").exists()


def test_traceback_only_on_request(command: Command) -> None:
    assert "Traceback" not in command("train", "temperature.value=0")[2]
    del os.environ["KDX_FULL_ERROR"]  # left by the command above
    done = subprocess.run(
        [sys.executable, "-m", "kdx.cli.train", "temperature.value=0"],
        env={**os.environ, "HYDRA_FULL_ERROR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and "Traceback" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--cfg", "job"], ["--info", "losses"], ["+typo=1"], ["data=digit"], ["seed=abc"], ["losses.kl.weight=-1"]],
)
def test_answers_before_torch_is_imported(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, kdx.cli.train\n"
        f"sys.argv = ['kdx-train', *{arguments!r}]\n"
        "try: kdx.cli.train.main()\n"
        "finally: assert not {'torch', 'timm', 'pytorch_lightning', 'wandb'} & set(sys.modules), 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "heavy import" not in done.stderr
    assert done.returncode == (0 if arguments[0].startswith("--") else 2), done.stderr


def test_a_network_that_does_not_fit_is_told_before_lightning_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, kdx.cli.train\n"
        "sys.argv = ['kdx-train', 'network@student=timm', 'student.architecture=vit_tiny_patch16_224']\n"
        "try: kdx.cli.train.main()\n"
        "finally: assert not {'torchmetrics', 'pytorch_lightning'} & set(sys.modules), 'heavy import'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "does not run at resolution.student=4" in done.stderr, done.stderr
    assert "heavy import" not in done.stderr


def test_a_run_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    words = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "teacher.recipe.trainer.max_epochs=1", "preflight=off"]
    code = (
        "import sys, kdx.cli.train\n"
        f"sys.argv = ['kdx-train', 'logger=none', *{words!r}]\n"
        "try: kdx.cli.train.main()\n"
        "finally: assert not {'sklearn', 'pandas', 'scipy.signal', 'scipy.stats', 'wandb'} & set(sys.modules), 'heavy import'\n"
        "import scipy.signal; assert scipy.signal.windows.hamming(3)[1] == 1\n"  # the stand-in is gone
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "heavy import" not in done.stderr and done.returncode == 0, done.stderr


def test_evaluate_wants_the_folder_of_a_run(command: Command) -> None:
    code, _, err = command("evaluate", "run=nowhere")
    assert code == 2 and "give the folder of a finished run" in err


def test_nan_stops_the_run_and_names_step_parts_and_checkpoint(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdx.experiment.try_losses import EXAMPLES
    from kdx.losses.ce import CE
    from kdx.types import Outputs

    calls: list[int] = []
    original = CE.forward

    def poisoned(self: CE, outputs: Outputs) -> torch.Tensor:
        if len(outputs.student_logits) > EXAMPLES:  # not in the dry run
            calls.append(0)
        return original(self, outputs) * (float("nan") if len(calls) == 6 else 1.0)

    monkeypatch.setattr(CE, "forward", poisoned)
    code, _, err = command("train", "logger=none", "experiment=supervised_digits", "trainer=cpu", "trainer.max_epochs=3")
    told = err.strip().splitlines()[-1]
    assert code == 1
    assert "step 5" in told and "loss_ce = nan" in told and "last.ckpt" in told
    last = next(Path("outputs").rglob("last.ckpt"))
    state = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())


def test_nan_at_the_first_step_is_not_blamed_on_lr(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdx.experiment.try_losses import EXAMPLES
    from kdx.losses.ce import CE
    from kdx.types import Outputs

    original = CE.forward

    def poisoned(self: CE, outputs: Outputs) -> torch.Tensor:
        return original(self, outputs) * (float("nan") if len(outputs.student_logits) > EXAMPLES else 1.0)

    monkeypatch.setattr(CE, "forward", poisoned)
    code, _, err = command("train", "logger=none", "experiment=supervised_digits", "trainer=cpu", "trainer.max_epochs=3")
    told = err.strip().splitlines()[-1]
    assert code == 1 and "step 0" in told and "trainer.precision=32-true" in told and "student.mean" in told
    assert "lower optimizer.lr" not in told and "Error executing job" not in err


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_feature_that_does_not_exist_is_told_with_those_that_do(command: Command, who: str) -> None:
    own = ["experiment=none", "losses=[kl,hint]", f"losses.hint.loss.features.{who}=layer9"]
    code, _, err = command("train", "logger=none", "trainer=cpu", *own)
    told = err.strip().splitlines()[-1]
    assert code == 2 and f"features of {who}" in told and "'layer9'" in told and "layer3" in told and "pooled" in told
    assert not list(Path("outputs").glob("teachers/*"))


def test_members_of_different_classes_are_refused_before_anything_is_trained(command: Command) -> None:
    code, _, err = command("train", "logger=none", "teacher=ensemble", f"teacher.members.b.checkpoint={_file('classes')}")
    told = err.strip().splitlines()[-1]
    assert code == 2 and "teacher.members.b.checkpoint" in told and "100 classes" in told
    assert not list(Path("outputs").glob("teachers/*"))


@pytest.mark.parametrize(("losses", "method"), [("ctkd/dkd", "DKD"), ("ce,nkd", "NKD")])
def test_distillation_of_the_other_classes_is_refused_for_two(command: Command, losses: str, method: str) -> None:
    own = ["experiment=none", "logger=none", "trainer=cpu", "data=glyphs", "data.source.classes=OQ"]
    code, _, err = command("train", f"losses=[{losses}]", *own)
    assert code == 2 and f"{method} needs at least 3 classes" in err.strip().splitlines()[-1]
