"""kdx-cache: what kept answers cost, and what becomes of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdx.experiment.answer_costs import AnswerCosts
from kdx.run import job
from kdx.teachers.answers import Answers

Command = Callable[..., tuple[int, str, str]]
CARD = {
    "teacher": [["a1b2c3d4e5f6", {"architecture": "cifar_resnet20"}, None]],
    "data": "0123456789",
    "seed": 3,
    "views": {"crop": {"_target_": "kdx.views.crops.Pad"}},
    "resolution": [8],
}


def keep(root: Path, name: str, days: float = 0.0) -> Answers:
    """Answers of one epoch, 20 kB, that were used so many days ago."""
    answers = Answers(root / name, 16, CARD, root / "runs" / name)
    answers.write(0, 100, torch.arange(100), torch.randn(100, 1, 100))
    for path in answers.folder.iterdir():
        os.utime(path, (time.time() - days * 86400,) * 2)
    return answers


def test_ls_shows_what_a_key_was_made_of(command: Command, tmp_path: Path) -> None:
    keep(tmp_path / "kept", "one", days=2)
    code, out, _ = command("cache", "ls", str(tmp_path / "kept"))
    assert code == 0
    for word in ("one", "cifar_resnet20 a1b2c3d4", "01234567, train", "Pad, seed 3, 8 px", "16", "kB", "48 h"):
        assert word in out, word


def test_a_damaged_file_is_named_and_deleted_on_request(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "kept"
    keep(root, "sound")
    file = keep(root, "damaged").folder / "00000-16.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    code, out, err = command("cache", "verify", str(root))
    assert code == 1 and f"{file}: damaged" in out and "1 of 2 files are sound" in out and "--delete" in err
    assert command("cache", "verify", str(root), "--delete")[0] == 0 and not file.exists()
    assert "1 of 1 files are sound" in command("cache", "verify", str(root))[1]


def test_prune_deletes_by_age_and_by_size_and_never_what_is_in_use(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "kept"
    for name, days in (("old", 40), ("older", 50), ("oldest", 60), ("new", 1)):
        keep(root, name, days)
    with job.held(root / "runs" / "oldest"):
        code, out, _ = command("cache", "prune", str(root), "older=45d", "--dry-run")
        assert code == 0 and "older: " in out and "would free" in out and (root / "older").exists()
        _, out, _ = command("cache", "prune", str(root), "older=45d")
        assert not (root / "older").exists() and (root / "oldest").exists() and "1 in use stay" in out
    assert "freed" in command("cache", "prune", str(root), "keep=45kB")[1]
    assert (root / "new").exists() and (root / "old").exists() and not (root / "oldest").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prune", "keap=3GB"), "Did you mean 'keep'?"),
        (("prune", "keep=3"), "keep=10GB"),
        (("prune",), "needs a limit"),
        (("ls", "older=3d"), "expected FOLDER"),
        (("ls", "nowhere"), "No answers found in nowhere"),
        (("list",), "invalid choice: 'list'"),
        (("estimate", "views=fix"), "runs once in any case"),
        (("estimate", "experiment=supervised_digits"), "no teacher"),
    ],
    ids=str,
)
def test_a_mistake_has_its_remedy(command: Command, words: tuple[str, ...], message: str) -> None:
    code, _, err = command("cache", *words)
    assert code == 2 and message in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ls",), "answers yet: runs with teacher_cache=auto keep them there"),
        (("verify",), "0 of 0 files"),
        (("prune", "keep=1GB"), "freed 0"),
    ],
    ids=str,
)
def test_nothing_kept_yet_is_no_mistake(command: Command, words: tuple[str, ...], told: str) -> None:
    code, out, _ = command("cache", *words)
    assert code == 0 and told in out


def test_estimate_tells_bytes_and_time(command: Command) -> None:
    words = ("data=digits300", "views=same", "views.distinct_epochs=5", "trainer.max_epochs=20")
    code, out, err = command("cache", "estimate", *words)
    assert code == 0, err
    assert "6.0 kB per epoch: 300 images x 10 classes x 16 bits" in out and "30.0 kB in all: 5 of 20 epochs" in out


@pytest.mark.parametrize(
    ("teacher", "keep", "read", "distinct"), [(1.0, 0.1, 0.0, 10), (1.0, 0.1, 0.0, 5), (1.0, 2.5, 0.5, 10), (1.0, 0.1, 1.0, 10)]
)
def test_answers_pay_from_the_first_number_of_runs_that_takes_less_time(
    teacher: float, keep: float, read: float, distinct: int
) -> None:
    costs = AnswerCosts(1, 1, 1, 16, epochs=10, distinct=distinct, teacher=teacher, keep=keep, read=read)
    paying = (
        runs for runs in range(1, 100) if distinct * (teacher + keep) + (10 * runs - distinct) * read < 10 * runs * teacher
    )
    assert costs.pays_from == next(paying, None)
