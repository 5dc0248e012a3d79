"""Answers of a teacher that are kept for other runs: equal to the teacher's own, and never those of other views."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdx.config.identity import digest
from kdx.config.schema import RunConfig
from kdx.data.source import ArrayImages
from kdx.experiment import build
from kdx.experiment.answers import card, members
from kdx.networks.network import Network
from kdx.teachers import answers as answers_file
from kdx.teachers.answers import Answers, rows
from kdx.teachers.teacher import OnlineTeacher
from kdx.training.answering import Answering
from kdx.types import Batch

SHORT = ("data=digits300", "trainer.max_epochs=2", "test=false", "preflight=off", "losses=[kl]", "baselines=[]")
KEPT = "teacher_cache={root}"
SAME = ("experiment=cqkd_digits", "views=same")
SETTINGS = {
    "same": SAME,
    "ind": ("experiment=cqkd_digits", "views=ind"),
    "fix": ("experiment=cqkd_digits", "views=fix", "augmentation=randaugment"),  # else the teacher runs once in any case
    "mixup": ("experiment=funmatch_digits", "temperature=constant"),
    "ensemble": (
        *SAME,
        "teacher=ensemble",
        "teacher.members.a.recipe.trainer.max_epochs=1",
        "teacher.members.b.recipe.trainer.max_epochs=1",
    ),
    "one loss per member": (
        *(*SAME, "teacher=ensemble", "teacher.combine=losses"),
        *("teacher.members.a.recipe.trainer.max_epochs=1", "teacher.members.b.recipe.trainer.max_epochs=1"),
    ),
    "calibrated": (*SAME, "calibration=temperature"),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of training images that the teacher answered in training, and for the comparison at its start."""
    seen: list[int] = []
    original = Answering._live

    def live(self: Answering, batch: Batch, count: int) -> Tensor:
        seen.append(min(count, len(batch)))
        return original(self, batch, count)

    monkeypatch.setattr(Answering, "_live", live)
    return seen


def keys(root: Path) -> set[Path]:
    """The folders of answers to views of training; those on val and test have 32 bits."""
    return {file.parent for file in root.glob("*/*-16.safetensors")}


def curves(folder: Path) -> list[dict[str, float]]:
    """The numbers of metrics.csv that are continuous in the logits: no timings, and nothing that counts right answers."""
    words = ("loss", "nll", "entropy", "brier")
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v and any(w in k for w in words)} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["same", "mixup"])
def test_in_the_second_cycle_a_run_reads_the_answers_of_its_first_one(
    train: Callable[..., Path], tmp_path: Path, asked: list[int], name: str
) -> None:
    words = (*SETTINGS[name], *SHORT, "trainer.max_epochs=3", "views.distinct_epochs=1", "teacher_cache_bits=32")
    live = train("live", *words)
    kept = train("kept", *words, KEPT.format(root=tmp_path / "kept"))
    assert curves(kept) == curves(live)
    assert asked == [64] * 4 + [44] * (name == "same")  # with mixing, no run needs the images that are left out
    asked.clear()
    other = train("other", *words, KEPT.format(root=tmp_path / "kept"), "seed=1", "views.seed=0")
    assert asked == [32] and "have the same views" in (other / "metrics.json").read_text()


@pytest.mark.parametrize(("name", "bits"), [("same", 16), *((name, 32) for name in SETTINGS)])
def test_kept_answers_are_those_of_the_teacher(
    train: Callable[..., Path], tmp_path: Path, calls: list[int], name: str, bits: int
) -> None:
    setting = SETTINGS[name]
    words = (*setting, *SHORT, KEPT.format(root=tmp_path / "kept"), f"teacher_cache_bits={bits}")
    live = train("live", *setting, *SHORT)
    calls.clear()
    first = train("first", *words)
    ran = len(calls)
    calls.clear()
    second = train("second", *words)
    steps = 2 * (300 // 64) * (2 if "ensemble" in " ".join(setting) else 1)
    assert ran - len(calls) >= steps - 2  # of which the comparison at the start takes one for each member
    assert curves(second) == curves(first)  # to the last bit, whatever was kept
    for one, other in zip(curves(second), curves(live), strict=True):
        assert one == other if bits == 32 else one == pytest.approx(other, rel=2e-3, abs=2e-3)


def test_other_views_have_other_answers(train: Callable[..., Path], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    train("base", *SAME, *SHORT, KEPT.format(root=kept))
    for word in (
        "seed=1",
        "teacher.recipe.seed=1",
        "data.split_seed=1",
        "resolution.teacher=6",
        "interpolation.teacher=bicubic",
    ):
        before = len(keys(kept))
        train(word.replace("=", " "), *SAME, *SHORT, KEPT.format(root=kept), word)
        assert len(keys(kept)) == before + 1, word
    before = len(keys(kept))
    for word in ("optimizer.lr=0.1", "temperature.value=7", "resolution.student=5", "network@student=cifar_resnet14"):
        train(word.replace("=", " "), *SAME, *SHORT, KEPT.format(root=kept), word)
        assert len(keys(kept)) == before, word


def test_runs_with_other_batches_and_seeds_find_answers_to_all_images(
    train: Callable[..., Path], tmp_path: Path, asked: list[int]
) -> None:
    words = (*SAME, *SHORT, KEPT.format(root=tmp_path / "kept"), "views.seed=5")
    train("first", *words)
    (first, _) = sorted(tmp_path.glob("kept/*/0*-16.safetensors"))
    table = Answers(first.parent).open(0)
    assert table is not None and table.isfinite().all()
    asked.clear()
    train("other", *words, "data.batch_size=50", "seed=1")  # other images are in no batch of an epoch
    assert asked == [32]


def test_damaged_answers_are_given_again(train: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = (*SAME, *SHORT, KEPT.format(root=tmp_path / "kept"))
    live = train("live", *words)
    (file,) = (tmp_path / "kept").glob("*/00001-16.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    again = train("again", *words)
    assert f"{file} is damaged" in (again / "train.log").read_text()
    assert bytes(content) != file.read_bytes() and Answers(file.parent).open(1) is not None
    for one, other in zip(curves(again), curves(live), strict=True):
        assert one == pytest.approx(other, rel=2e-3, abs=2e-3)


def test_answers_of_another_teacher_are_refused(
    train: Callable[..., Path], command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    words = (*SAME, *SHORT, KEPT.format(root=kept))
    train("first", *words)
    (folder,) = keys(kept)
    answers = Answers(folder)
    table = answers.open(0)
    assert table is not None
    (folder / "00000-16.safetensors").unlink()
    answers.write(0, len(table), torch.arange(len(table)), table.flip(-1))
    with pytest.raises(AssertionError, match="are not those of this teacher"):
        train("second", *words)


def test_a_full_disk_ends_the_keeping_alone(
    train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Answers, "write", full)
    folder = train("run", *SAME, *SHORT, KEPT.format(root=tmp_path / "kept"))
    log = (folder / "train.log").read_text()
    assert log.count("the training goes on") == 1 and "No space left on device" in log
    assert json.loads((folder / "metrics.json").read_text())["metrics"]


@pytest.mark.parametrize(
    ("words", "reason"), [(("losses=[kl,hint]",), "are not kept"), (("views=fix",), "runs once in any case")]
)
def test_a_run_that_cannot_use_answers_says_so(
    train: Callable[..., Path], tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    folder = train("run", *SAME, *SHORT, KEPT.format(root=tmp_path / "kept"), *words)
    assert reason in (folder / "train.log").read_text() and not keys(tmp_path / "kept")


def test_logits_that_16_bits_cannot_hold_are_refused(
    train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = OnlineTeacher.logits
    monkeypatch.setattr(OnlineTeacher, "logits", lambda self, images: original(self, images) * 1e6)
    with pytest.raises(AssertionError, match="use teacher_cache_bits=32"):
        train("run", *SAME, *SHORT, KEPT.format(root=tmp_path / "kept"))


@pytest.mark.parametrize("words", [(), ("views.distinct_epochs=1",)], ids=["first cycle", "second cycle"])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    train: Callable[..., Path], tmp_path: Path, words: tuple[str, ...]
) -> None:
    words = (*SAME, *SHORT, "callbacks.last.seconds=0", *words)
    whole = train("whole", *words, KEPT.format(root=tmp_path / "one"))
    kept = KEPT.format(root=tmp_path / "other")
    broken = train("broken", *words, kept)
    checkpoint = broken / "checkpoints" / "previous.ckpt"  # from before the end of an epoch that is kept by now
    again = train("again", *words, kept, f"ckpt_path={checkpoint}")
    states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (whole, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def changed_key(config: Callable[..., RunConfig], *words: str, pixel: int = 0, streamed: bool = False) -> str:
    """The key of the answers for a config of 40 gray images, one pixel of which may differ."""
    torch.manual_seed(0)
    parts = build.parts(config(*SAME, *SHORT, *words))
    pixels = np.zeros((40, 1, 8, 8), np.uint8)
    pixels[7, 0, 3, 4] = pixel
    images = ArrayImages(pixels, np.arange(40) % 10)
    return digest(card(parts, members(OnlineTeacher(Network("cifar_resnet8", 10, 1))), images, streamed))


@pytest.mark.parametrize(
    "words",
    [
        ("crop@views.crop=resize", "views=same"),
        ("augmentation=randaugment",),
        ("mixing=mixup",),
        ("seed=1",),
        ("resolution.teacher=6",),
        ("interpolation.teacher=bicubic",),
        ("data.flip=true",),
        ("views.seed=1",),
        ("data.teacher_view=student",),
        ("speed=exact",),
        ("trainer.precision=bf16-mixed",),
    ],
    ids=" ".join,
)
def test_what_changes_the_teachers_images_changes_the_key(config: Callable[..., RunConfig], words: tuple[str, ...]) -> None:
    assert changed_key(config, *words) != changed_key(config)


def test_pixels_and_workers_change_the_key_and_the_batch_only_with_mixing(config: Callable[..., RunConfig]) -> None:
    base = changed_key(config)
    assert changed_key(config, pixel=1) != base and changed_key(config, streamed=True) != base
    assert changed_key(config, "data.batch_size=32") == base
    mixed = changed_key(config, "mixing=mixup")
    assert changed_key(config, "mixing=mixup", "data.batch_size=32") != mixed


def test_the_views_seed_stands_for_the_runs_and_the_number_of_distinct_epochs_does_not_count(
    config: Callable[..., RunConfig],
) -> None:
    base = changed_key(config)
    assert changed_key(config, "views.seed=0", "seed=1") == base == changed_key(config, "views.distinct_epochs=3")
    assert changed_key(config, "views.seed=1", "seed=0") == changed_key(config, "seed=1")


def test_a_teacher_that_sees_one_of_several_student_resolutions_depends_on_the_batch(config: Callable[..., RunConfig]) -> None:
    words = ("data.teacher_view=student", "resolution.student=[4,6]")
    assert changed_key(config, *words, "data.batch_size=32") != changed_key(config, *words)


def test_a_teacher_that_sees_the_students_images_depends_on_how_they_are_made(config: Callable[..., RunConfig]) -> None:
    base = changed_key(config, "data.teacher_view=student")
    assert changed_key(config, "data.teacher_view=student", "interpolation.student=bicubic") != base
    assert changed_key(config, "data.teacher_view=student", "resolution.student=5") != base


def test_processes_that_write_the_same_epoch_leave_one_sound_file(tmp_path: Path) -> None:
    """Both are in the middle of writing when the first one ends."""
    both = threading.Barrier(2)
    index, logits = torch.arange(4), torch.randn(4, 2, 3)
    save = answers_file.save_file

    def slow(*arguments: Any) -> None:
        save(*arguments)
        both.wait(10)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(answers_file, "save_file", slow)
        list(pool.map(lambda _: Answers(tmp_path / "a", 32).write(0, 4, index, logits), range(2)))
    table = Answers(tmp_path / "a", 32).open(0)
    assert table is not None and torch.equal(table, logits)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["00000-32.safetensors"]


def test_rows_are_those_of_the_images(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "a", 32)
    logits = torch.randn(4, 2, 3)
    answers.write(7, 6, torch.tensor([5, 0, 2, 1]), logits)
    assert answers.has(7) and not answers.has(0) and answers.open(0) is None
    table = answers.open(7)
    assert table is not None and table[[3, 4]].isnan().all()
    torch.testing.assert_close(rows(table, torch.tensor([2, 5])), logits[[2, 0]].transpose(0, 1))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["00007-32.safetensors"]
