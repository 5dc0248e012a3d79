"""A teacher is trained once, and is there whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from kdx.config.identity import digest
from kdx.run.sweep_folder import write_progress
from kdx.teachers.store import WEIGHTS, Store

PARTS: dict[str, Any] = {"config": {"lr": 0.1, "steps": [1, 2]}, "data": "abc", "kdx": "0.1.0"}


def graduate(folder: Path) -> None:
    """Stands for a training run."""
    (folder / WEIGHTS).write_text("weights")


def quiet(message: str) -> None:
    """Nobody listens."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "teachers")


def test_a_teacher_that_is_there_is_not_trained_again(store: Store) -> None:
    trained: list[Path] = []

    def train(folder: Path) -> None:
        trained.append(folder)
        graduate(folder)

    assert not store.has("key")
    assert store.obtain("key", train, quiet) == store.obtain("key", train, quiet) == store.folder("key")
    assert store.has("key") and not store.has("other") and len(trained) == 1


def test_while_it_is_trained_it_is_not_there_yet(store: Store) -> None:
    def train(folder: Path) -> None:
        graduate(folder)
        assert not store.has("key") and not store.folder("key").exists()

    store.obtain("key", train, quiet)
    assert store.has("key")


def test_threads_that_ask_at_once_train_it_once_and_the_other_is_told_to_wait(store: Store) -> None:
    trained, said, found = [], [], []
    begun, ready = threading.Event(), threading.Event()

    def train(folder: Path) -> None:
        trained.append(folder)
        begun.set()
        assert ready.wait(10)
        graduate(folder)

    def say(message: str) -> None:
        said.append(message)
        ready.set()  # only once the second waits does the first get on

    threads = [threading.Thread(target=lambda: found.append(store.obtain("key", train, say))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert len(trained) == 1 and len(said) == 1 and "Waiting for another process" in said[0]
    assert found == [store.folder("key")] * 2


def test_who_waits_is_told_how_far_it_is_and_gives_up_without_progress(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdx.teachers.store.HEARTBEAT", 0.01)
    monkeypatch.setattr("kdx.teachers.store.PATIENCE", 0.1)
    draft, said = store.root / "key.part", []
    draft.mkdir(parents=True)
    (draft / "run.json").touch()

    def say(message: str) -> None:
        said.append(message)
        if len(said) < 5:
            write_progress(draft, f"{len(said)}/60", 10.0, None)

    with FileLock(store.root / "key.lock"), pytest.raises(TimeoutError, match=r"no progress with teacher key .* end it"):
        Store(store.root).obtain("key", graduate, say)
    assert "epoch 1/60" in said[1] and "epoch 4/60" in said[-1]
    with pytest.raises(TimeoutError, match="no progress"):
        store.arrival("key", quiet)  # as another rank, whose first one has ended
    store.folder("key").mkdir()
    graduate(store.folder("key"))
    store.arrival("key", pytest.fail)


def test_processes_that_ask_at_once_train_it_once(store: Store, tmp_path: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from kdx.teachers.store import Store, WEIGHTS
def train(folder):
    Path({str(tmp_path)!r}, f"trained-{{os.getpid()}}").touch()
    time.sleep(0.5)
    (folder / WEIGHTS).write_text("weights")
print(Store(Path({str(store.root)!r})).obtain("key", train, print))
"""
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [run.communicate(timeout=300)[0].splitlines()[-1] for run in runs]
    assert answers == [str(store.folder("key"))] * 3
    assert len(list(tmp_path.glob("trained-*"))) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_is_cut_off_leaves_no_teacher_and_the_next_goes_on(store: Store, error: type[BaseException]) -> None:
    def crash(folder: Path) -> None:
        graduate(folder)
        raise error

    with pytest.raises(error):
        store.obtain("key", crash, quiet)
    assert not store.has("key")
    seen: list[list[Path]] = []

    def train(folder: Path) -> None:
        seen.append(list(folder.iterdir()))
        graduate(folder)

    store.obtain("key", train, quiet)
    assert store.has("key") and [path.name for path in seen[0]] == [WEIGHTS], "the second goes on in the folder of the first"


def test_a_killed_process_leaves_no_teacher_and_no_lock(store: Store, tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from kdx.teachers.store import Store, WEIGHTS
def train(folder):
    (folder / WEIGHTS).write_text("half")
    Path({str(tmp_path)!r}, "begun").touch()
    time.sleep(600)
Store(Path({str(store.root)!r})).obtain("key", train, print)
"""
    run = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "begun").exists() and run.poll() is None:
        time.sleep(0.01)
    run.kill()
    run.wait()
    assert not store.has("key")
    assert (store.obtain("key", graduate, quiet) / WEIGHTS).read_text() == "weights"


def test_remains_without_weights_are_replaced(store: Store) -> None:
    (store.root / "key" / "checkpoints").mkdir(parents=True)
    folder = store.obtain("key", graduate, quiet)
    assert [path.name for path in folder.iterdir()] == [WEIGHTS] and not (store.root / "key.part").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"lr": 0.1, "steps": [2, 1]}},
        {"config": {"lr": 0.2, "steps": [1, 2]}},
        {"config": {"lr": "0.1", "steps": [1, 2]}},
        {"data": "abd"},
        {"kdx": "0.1.1"},
        {"more": None},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_any_part(change: dict[str, Any]) -> None:
    assert digest(PARTS | change) != digest(PARTS)


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    backwards = {"kdx": "0.1.0", "data": "abc", "config": {"steps": [1, 2], "lr": 0.1}}
    assert digest(backwards) == digest(PARTS) and len(digest(PARTS)) == 16


def test_training_that_leaves_no_weights_is_an_error_and_leaves_no_teacher(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match=r"did not write student\.safetensors"):
        store.obtain("abc", lambda folder: None, print)
    assert not store.has("abc") and not store.folder("abc").exists()
