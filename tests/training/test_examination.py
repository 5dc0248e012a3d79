"""A teacher's logits on val and test that are kept for other runs: no number differs, and the teacher hardly runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdx.teachers.answers import Answers
from kdx.teachers.teacher import OnlineTeacher
from kdx.training.examination import CHECKED, Examination, SplitAnswers
from kdx.training.preflight import inspect
from kdx.types import Batch

SHORT = ("data=digits300", "trainer.max_epochs=1", "baselines=[]", "losses=[kl]", "experiment=cqkd_digits", "views=same_resize")
MEASURED = ("seconds", "images_per_second", "memory", "energy", "latency")
CPU = torch.device("cpu")


def numbers(folder: Path) -> dict[str, float]:
    found = json.loads((folder / "metrics.json").read_text())["metrics"]
    return {name: value for name, value in found.items() if not any(word in name for word in MEASURED)}


@pytest.mark.parametrize("words", [(), ("teacher=ensemble", "calibration=temperature")], ids=["one", "ensemble"])
def test_the_second_run_measures_the_same_without_the_teacher(
    train: Callable[..., Path], tmp_path: Path, calls: list[int], words: tuple[str, ...]
) -> None:
    recipes = [f"teacher.members.{name}.recipe.trainer.max_epochs=1" for name in ("a", "b")] if words else []
    words = (*SHORT, *words, *recipes, f"teacher_cache={tmp_path / 'kept'}")
    first, ran = train("first", *words), sum(calls)
    calls.clear()
    second = train("second", *words)
    assert numbers(second) == numbers(first) and sum(calls) < ran / 4
    assert len(list((tmp_path / "kept").iterdir())) == 4  # val and test, for the images of teacher and student


def test_answers_that_are_not_the_teachers_are_given_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers, index, logits = Answers(tmp_path / "key", 32), torch.arange(40), torch.randn(1, 40, 3)
    answers.write(0, 40, index, logits.transpose(0, 1) + 0.01)
    asked: list[int] = []

    def live(count: int) -> Tensor:
        asked.append(count)
        return logits[:, :count]

    once = SplitAnswers(answers, 40, CPU)
    assert torch.equal(once(index, live), logits) and asked == [CHECKED, 40]
    assert "are not those of this teacher" in caplog.text and not answers.has(0)
    once.finish()
    assert torch.equal(SplitAnswers(answers, 40, CPU)(index, live), logits) and asked == [CHECKED, 40, CHECKED]


def test_a_part_of_a_split_and_a_full_disk_keep_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers, logits = Answers(tmp_path / "key", 32), torch.randn(1, 40, 3)
    part = SplitAnswers(answers, 41, CPU)
    part(torch.arange(40), lambda count: logits[:, :count])
    part.finish()
    assert not tmp_path.joinpath("key").exists()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdx.teachers.answers.save_file", full)
    whole = SplitAnswers(answers, 40, CPU)
    whole(torch.arange(40), lambda count: logits[:, :count])
    whole.finish()
    assert "No space left on device" in caplog.text and not list(tmp_path.glob("key/*.safetensors*"))


def test_a_teacher_that_sees_the_students_images_runs_once() -> None:
    asked: list[int] = []

    class Pixels(OnlineTeacher):
        num_classes, resolution, alternatives = 4, None, ()

        def __init__(self) -> None: ...

        def logits(self, images: Tensor) -> Tensor:
            asked.append(len(images))
            return images.flatten(1)

        def runs_at(self, side: int) -> bool:
            return True

    images, label = torch.randn(8, 1, 2, 2), torch.arange(8) % 4
    teacher = Pixels()
    one = inspect(teacher, [Batch(images, images, label)], None, 4, judged=False)
    assert asked == [8]
    other = inspect(teacher, [Batch(images, images.clone(), label)], None, 4, judged=False, examination=Examination(teacher))
    assert asked == [8, 8, 8] and one.metrics == other.metrics
