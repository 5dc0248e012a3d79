"""Networks, losses, temperature and length of the training are tried before a teacher is trained."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from kdx.config import plugins
from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.data.source import ArrayImages
from kdx.experiment import build
from kdx.experiment.data import carve_splits, read_splits
from kdx.experiment.dry_run import dry_run
from kdx.experiment.length import training_length, validation_interval

Try = Callable[..., str]
TIMM = ("network@student=timm", "resolution.teacher=32")
VIT = (*TIMM, "student.architecture=vit_tiny_patch16_224")
DISTILLED = (
    *TIMM,
    "student.architecture=deit_tiny_distilled_patch16_224",
    "+student.args={img_size: 16, patch_size: 8, embed_dim: 24, depth: 2, num_heads: 3}",
    "resolution.student=16",
)
PLAIN = ("experiment=none", "data=digits", "trainer=cpu")

NETWORKS = {
    "a ViT of another size": (
        [*VIT, "resolution.student=16"],
        "resolution.student=16: Input height (16)",
        "add +student.args.img_size=16",
    ),
    "a wrong img_size": (
        [*VIT, "resolution.student=16", "+student.args.img_size=32"],
        "resolution.student=16",
        "set student.args.img_size=16",
    ),
    "a Swin teacher": (
        ["network@teacher.network=timm", "teacher.network.architecture=swin_tiny_patch4_window7_224", "resolution.teacher=32"],
        "teacher.network: swin_tiny_patch4_window7_224 does not run at resolution.teacher=32",
        "add +teacher.network.args.img_size=32",
    ),
    "a member of an ensemble": (
        [
            "teacher=ensemble",
            "network@teacher.members.b.network=timm",
            "teacher.members.b.resolution=16",
            "teacher.members.b.network.architecture=mixer_s16_224",
        ],
        "teacher.members.b.network: mixer_s16_224 does not run at teacher.members.b.resolution=16",
        "add +teacher.members.b.network.args.img_size=16",
    ),
    "a peer": (
        ["teacher=none", "peers=dml", "losses=[kd]", "+network@peers.members.b=timm", "peers.members.b.architecture=vgg11"],
        "peers.members.b: vgg11 does not run at resolution.student=4",
        "use resolution.student=32",
    ),
    "a patch larger than the image": ([*VIT, "resolution.student=8"], "resolution.student=8", "use resolution.student=224"),
    "too deep for its pixels": (
        [*TIMM, "student.architecture=densenet121", "resolution.student=8"],
        "densenet121 does not run at resolution.student=8",
        "use resolution.student=32, or another network",
    ),
    "one of several resolutions": (
        [*TIMM, "student.architecture=densenet121", "resolution.student=[32,8]"],
        "does not run at resolution.student=8",
        "use resolution.student=32",
    ),
    "one image per batch": (
        [*TIMM, "student.architecture=resnet18", "resolution.student=32", "data.batch_size=1"],
        "more than 1 value per channel",
        "use data.batch_size=2 or more",
    ),
    "a path of features": (["losses=[kl,hint]", "losses.hint.loss.features.student=layer9"], "features of student", "pooled"),
}


@pytest.fixture
def attempt(config: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture) -> Try:
    """Run the dry run of a config and return its warnings."""

    def run(*overrides: str) -> str:
        parts = build.parts(config(*PLAIN, *overrides))
        splits = carve_splits(parts.config.data, read_splits(parts.config.data, parts.source))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "kdx"):
            before = torch.random.get_rng_state()
            dry_run(parts, splits)
        assert torch.equal(before, torch.random.get_rng_state())
        return "\n".join(record.getMessage() for record in caplog.records)

    return run


@pytest.mark.parametrize(("overrides", "what", "remedy"), NETWORKS.values(), ids=NETWORKS.keys())
def test_a_network_that_does_not_run_is_refused(attempt: Try, overrides: list[str], what: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        attempt(*overrides)
    assert what in str(error.value) and remedy in str(error.value)


def test_the_remedy_runs(attempt: Try) -> None:
    assert "not used" not in attempt(*VIT, "resolution.student=16", "+student.args.img_size=16")


WARNINGS = {
    "patch 16 at 20 px": (
        [*VIT, "resolution.student=20", "+student.args.img_size=20"],
        "patches of 16 px do not divide images of 20 px, so 36% of the pixels are not used: use a multiple of 16 px, e.g. 16",
    ),
    "one of several resolutions": (
        [*TIMM, "student.architecture=convnext_atto", "resolution.student=[33,32]"],
        "patches of 4 px do not divide images of 33 px, so 6% of the pixels are not used",
    ),
    "the 4 px stem of a ConvNeXt": (
        [*TIMM, "student.architecture=convnext_atto", "resolution.student=34"],
        "patches of 4 px do not divide images of 34 px, so 11% of the pixels are not used",
    ),
    "more pixels than the teacher": (["resolution.student=8", "resolution.teacher=4"], "larger than resolution.teacher=4"),
    "more pixels than there are": (["resolution.student=16", "resolution.teacher=16"], "larger than the images (8 px)"),
    "no validation": (
        ["trainer.max_epochs=-1", "trainer.max_steps=5"],
        "trainer.max_steps=5 ends before the first validation, after 14 steps",
    ),
    "a warm-up of the paper": (
        ["lr_schedule.warmup_steps=1500", "trainer.max_epochs=1"],
        "lr reaches 0.9% of optimizer.lr=0.001",
    ),
    "a warm-up in epochs": (
        ["lr_schedule.warmup_epochs=10", "trainer.max_epochs=4"],
        "lr_schedule.warmup_epochs=10: the warm-up",
    ),
}


@pytest.mark.parametrize(("overrides", "words"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_runs_but_loses_is_warned_about(attempt: Try, overrides: list[str], words: str) -> None:
    assert words in attempt(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["losses=[kl,hint]"],
        ["losses=[crd]"],
        ["losses=[srrl]", "losses.srrl.loss.features.student=pooled"],
        ["losses=[kl,rkd,at,sp,pkt,vid,dist]"],
        ["losses=[kl,ttm,wttm,nkd,mlld,ofa,hard]", "temperature=curriculum_instance"],
        ["losses=[ofa,nkd,hard]", "mixing=mixup"],
        ["losses=[ofa,nkd,mlld,hard]", "teacher=ensemble", "teacher.combine=losses"],
        ["losses=[ttm,nkd,mlld,hard]", "teacher=none", "peers=dml"],
        ["temperature=curriculum_instance"],
        ["temperature=per_network"],
        ["teacher=ensemble", "teacher.combine=losses"],
        ["teacher=none", "peers=dml", "losses=[kd]"],
        ["mixing=mixup"],
        ["lr_schedule=onecycle"],
        ["teacher=none", "losses=[ce]", "resolution.student=16"],
        ["lr_schedule.warmup_epochs=5", "trainer.max_epochs=60"],
        ["data.batch_size=1", "resolution.student=8"],
    ],
    ids=" ".join,
)
def test_what_is_right_gives_no_warning(attempt: Try, overrides: list[str]) -> None:
    assert attempt(*overrides) == ""


@pytest.mark.parametrize("losses", ["deit", "deit_soft"])
def test_two_heads_learn_from_labels_and_from_an_ensemble(attempt: Try, losses: str) -> None:
    assert "larger than the images" in attempt(*DISTILLED, f"losses=[{losses}]", "teacher=ensemble", "mixing=mixup")


def test_a_loss_of_a_module_that_is_no_head_is_refused(attempt: Try) -> None:
    with pytest.raises(ConfigError, match=r"losses: Module 'norm' returns \[6, 24\] .*10 classes: set `head`"):
        attempt(*DISTILLED, "losses=[deit]", "losses.deit_teacher.loss.head=norm")


def test_a_warning_about_the_training_of_a_teacher_names_it(attempt: Try) -> None:
    assert attempt("teacher=none", "losses=[ce]", "name=teacher", "lr_schedule.warmup_epochs=99").startswith("teacher: lr_sch")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write the user's module my_parts.py, importable as a plug-in."""
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    head = (
        "import torch\nfrom kdx.losses.objective import Loss\nfrom kdx.temperatures.base import Temperature\n\n"
        "class Mine(Loss):\n    needs_teacher = True\n    def forward(self, outputs):\n        return {}\n\n"
        "class Own(Temperature):\n    def forward(self, student_logits, teacher_logits, progress):\n        return {}\n"
    )

    def write(loss: str = "outputs.student_logits.mean(-1)", temperature: str = "student_logits.new_tensor(1.0)") -> None:
        (tmp_path / "my_parts.py").write_text(head.format(loss, temperature))

    yield write
    import sys

    sys.modules.pop("my_parts", None)


TERM = "_target_: kdx.losses.objective.Term"


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("outputs.student_logits.detach().mean(-1)", "losses.mine has no gradient with respect to the student"),
        ("outputs.teacher_logits.mean(-1)", "losses.mine has no gradient"),
        ("(outputs.student_logits.argmax(-1) == outputs.label).float()", "losses.mine has no gradient"),
        ("torch.nn.Parameter(torch.ones(len(outputs.student_logits)))", "losses.mine has no gradient"),
        ("outputs.student_logits", "losses.mine returned shape"),
    ],
)
def test_a_loss_of_the_users_that_cannot_train(attempt: Try, mine: Callable[..., None], loss: str, words: str) -> None:
    mine(loss)
    with pytest.raises(ConfigError, match=words):
        attempt(f"+losses.mine={{{TERM}, loss: {{_target_: my_parts.Mine}}}}")


def test_a_loss_of_the_users_that_is_no_term(attempt: Try, mine: Callable[..., None]) -> None:
    mine()
    with pytest.raises(
        ConfigError, match=r"losses.mine is a Mine, not a Term: set mine: \{_target_: kdx.losses.objective.Term, loss"
    ):
        attempt("+losses.mine={_target_: my_parts.Mine}")


@pytest.mark.parametrize(
    ("temperature", "words"),
    [
        ("student_logits.new_tensor(-1.0)", "Own returned -1 at progress 0"),
        ("student_logits.new_tensor(1.0 - progress.fraction)", "Own returned 0 at progress 1"),
        ("student_logits.new_tensor([[2.0]] * (len(student_logits) - 1) + [[-3.0]])", "Own returned -3 at progress 0"),
        ("student_logits.new_tensor(float('nan'))", "Own returned nan at progress 0"),
        ("4.0", "Own returned a float"),
    ],
)
def test_a_temperature_of_the_users_that_is_not_positive(
    attempt: Try, mine: Callable[..., None], temperature: str, words: str
) -> None:
    mine(temperature=temperature)
    with pytest.raises(ConfigError, match=words):
        attempt("temperature=none", "+temperature={_target_: my_parts.Own}")


@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer.max_epochs=3",),
        ("trainer.max_epochs=2", "trainer.accumulate_grad_batches=3"),
        ("trainer.max_epochs=-1", "trainer.max_steps=7"),
        ("trainer.max_epochs=2", "trainer.limit_train_batches=0.4"),
        ("trainer.max_epochs=2", "trainer.limit_train_batches=2"),
        ("trainer.max_epochs=4", "trainer.max_steps=7"),
        ("trainer.max_epochs=2", "+trainer.overfit_batches=1"),
    ],
    ids=" ".join,
)
def test_the_length_is_the_one_that_lightning_counts(config: Callable[..., RunConfig], overrides: tuple[str, ...]) -> None:
    checked = config(*PLAIN, "data.batch_size=10", "trainer.check_val_every_n_epoch=1", *overrides)
    trainer = build.make(checked.trainer, "trainer", logger=False, enable_checkpointing=False, enable_progress_bar=False)

    class Model(pl.LightningModule):
        counted = 0

        def configure_optimizers(self) -> torch.optim.Optimizer:
            self.trainer.fit_loop.setup_data()
            self.counted = int(self.trainer.estimated_stepping_batches)
            return torch.optim.SGD(self.parameters(), 0.1)

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            return self.layer(batch[0]).mean()

    model = Model()
    data = torch.utils.data.TensorDataset(torch.zeros(57, 1))
    trainer.fit(model, torch.utils.data.DataLoader(data, 10, drop_last=True))
    assert training_length(checked, 57).total == model.counted == trainer.global_step


def test_what_a_warning_of_few_steps_advises_is_enough(config: Callable[..., RunConfig]) -> None:
    from kdx.experiment.cautions import about_steps

    short, longer = (config(*PLAIN, "data.batch_size=64", f"trainer.max_epochs={epochs}") for epochs in (2, 25))
    assert "use trainer.max_epochs=25 or more" in next(about_steps(short, training_length(short, 300)))  # 4 steps an epoch
    assert not list(about_steps(longer, training_length(longer, 300)))


def test_images_that_cannot_be_read_do_not_stop_the_warning_about_pixels(config: Callable[..., RunConfig]) -> None:
    from kdx.experiment.cautions import about_pixels

    class Torn(ArrayImages):
        def __getitem__(self, index: int) -> np.ndarray:
            if index == 0:
                raise ValueError("torn")
            return super().__getitem__(index)

    checked = config(*PLAIN, "resolution.student=8", "resolution.teacher=8")
    pixels = np.zeros((5, 1, 6, 7), np.uint8)
    assert [*about_pixels(checked, Torn(pixels, None))] == [
        "resolution.student=8 is larger than the images (7 px): enlarged images have no further detail"
    ]


@pytest.mark.parametrize(
    ("train", "val", "words", "every"),
    [
        (900, 100, "trainer.max_epochs=60", 1),  # 100 / (100 + 3 x 900) is under 5 %
        (899, 359, "trainer.max_epochs=60", 3),  # 2.7
        (100, 359, "trainer.max_epochs=60", 30),  # 22.8, and 30 validates the last epoch too
        (100, 359, "trainer.max_epochs=59", 23),
        (100, 359, "trainer.max_epochs=9", 9),
        (1000, 100, "trainer.limit_train_batches=10", 10),  # 6.3
        (100, 359, "trainer.check_val_every_n_epoch=4", 4),
    ],
)
def test_auto_validates_as_often_as_takes_a_twentieth(
    config: Callable[..., RunConfig], train: int, val: int, words: str, every: int
) -> None:
    cfg = config(*PLAIN, "data.batch_size=10", "trainer.max_epochs=60", "trainer.check_val_every_n_epoch=auto", words)
    assert validation_interval(cfg, train, val) == every


@pytest.mark.parametrize(("slowdown", "words", "warned"), [(2.0, "bf16-mixed", 1), (1.0, "bf16-mixed", 0), (2.0, "32-true", 0)])
def test_bfloat16_that_is_slower_on_the_processor_is_warned_about(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, slowdown: float, words: str, warned: int
) -> None:
    from kdx.experiment import cautions

    monkeypatch.setattr(cautions, "bfloat16_slowdown", lambda: slowdown)
    for key in ("trainer.precision", "teacher.precision"):
        found = list(cautions.about_precision(config(*PLAIN, "trainer.accelerator=cpu", f"{key}={words}")))
        assert len(found) == warned
        assert all("take 2.0 times as long" in text and f"use {key}=32-true" in text for text in found)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN can be told only there to use less")
def test_the_trial_of_bfloat16_finds_a_processor_without_it() -> None:
    code = "from kdx.experiment.cautions import bfloat16_slowdown; print(bfloat16_slowdown())"
    without = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}  # as if the processor had neither AMX nor avx512_bf16
    result = subprocess.run([sys.executable, "-c", code], env=without, capture_output=True, text=True, check=True)
    assert float(result.stdout) > 1.2


def test_epochs_are_counted_as_lightning_takes_steps(config: Callable[..., RunConfig]) -> None:
    """Five batches, two at a time, are three steps: twelve epochs are not the fifteen of 36 / 2.5."""
    cfg = config(*PLAIN, "data.batch_size=10", "trainer.max_epochs=12", "trainer.accumulate_grad_batches=2")
    found = training_length(cfg, 57)
    assert (found.total, found.epochs, found.passes) == (36, 12, 12)
    cut = training_length(config(*PLAIN, "data.batch_size=10", "trainer.max_steps=7"), 57)
    assert (cut.total, cut.epochs, cut.passes) == (7, 2, 1.4)


def test_auto_stands_in_the_config_and_its_number_in_the_trainer(
    train: Callable[..., Path], command: Callable[..., tuple[int, str, str]]
) -> None:
    """So the same command finds its run again, and what is read from its folder is evaluated as it was trained."""
    folder = train("run", "trainer.check_val_every_n_epoch=auto", "trainer.max_epochs=4")
    assert "check_val_every_n_epoch: auto" in (folder / "config.yaml").read_text()
    assert train("run", "trainer.check_val_every_n_epoch=auto", "trainer.max_epochs=4") == folder
    code, _, err = command("evaluate", f"run={folder}")
    assert code == 0, err
