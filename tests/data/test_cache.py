"""The decoded cache: the same pixels, whole or not at all, never for other images."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdx.data import cache
from kdx.data.cache import CachedImages, cached, key
from kdx.data.glyphs import GlyphImages
from kdx.data.source import ArrayImages, BadImageError, Images, Subset

Disk = namedtuple("Disk", "total used free")


class Uneven(Images):
    """Images of different sizes; those in `bad` cannot be decoded. Counts what is decoded."""

    def __init__(self, count: int = 80, bad: tuple[int, ...] = (), pause: float = 0.0) -> None:
        self.count, self.bad, self.pause, self.decoded = count, bad, pause, 0
        self.labels = np.arange(count) % 3

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        self.decoded += 1
        time.sleep(self.pause)
        if index in self.bad:
            raise BadImageError(f"image {index} is bad")
        numbers = np.random.default_rng(index)
        return numbers.integers(0, 256, (3, 5 + index % 7, 4 + index % 3), np.uint8)


@pytest.fixture
def said() -> list[str]:
    return []


def test_pixels_are_equal_and_are_decoded_once(tmp_path: Path, said: list[str]) -> None:
    images = Uneven()
    found = cached(images, tmp_path / "cache", "k", said.append)
    written = images.decoded
    again = cached(images, tmp_path / "cache", "k", said.append)
    for stored in (found, again, pickle.loads(pickle.dumps(again))):
        assert len(stored) == 80
        np.testing.assert_array_equal(stored.labels, images.labels)
        for i in range(80):
            np.testing.assert_array_equal(stored[i], Uneven()[i])
            assert stored[i].flags.writeable  # torch.from_numpy warns otherwise
    assert images.decoded == written == 80 + cache.SAMPLE
    assert len(said) == 1 and "80 decoded images, about 0.00 GB" in said[0]


def test_what_is_sent_to_workers_is_small(tmp_path: Path, said: list[str]) -> None:
    found = cached(ArrayImages(np.zeros((50, 3, 64, 64), np.uint8), None), tmp_path, "k", said.append)
    found[0]
    assert isinstance(found, CachedImages) and found.labels is None
    found.images = Uneven(50)
    assert len(pickle.dumps(found)) < 5000


def test_a_bad_image_stays_bad_and_disturbs_no_other(tmp_path: Path, said: list[str]) -> None:
    for _ in range(2):
        found = cached(Uneven(bad=(0, 7)), tmp_path, "k", said.append)
        with pytest.raises(BadImageError, match="image 7 is bad"):
            found[7]
        np.testing.assert_array_equal(found[8], Uneven()[8])
    none = cached(Uneven(2, bad=(0, 1)), tmp_path, "none", said.append)
    with pytest.raises(BadImageError):
        none[0]


@pytest.mark.parametrize("part", [cache.PIXELS, cache.OFFSETS, cache.SHAPES])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_a_damaged_cache_is_written_again(tmp_path: Path, said: list[str], part: str, damage: str) -> None:
    cached(Uneven(), tmp_path, "k", said.append)
    path = tmp_path / "k" / part
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1 if damage == "cut" else 0)
    found = cached(Uneven(), tmp_path, "k", said.append)
    np.testing.assert_array_equal(found[79], Uneven()[79])
    assert any("is damaged: writing it again" in line for line in said)


def test_a_process_killed_while_writing_leaves_nothing_that_looks_like_a_cache(tmp_path: Path, said: list[str]) -> None:
    code = (
        "import sys, numpy as np, time; from pathlib import Path; from kdx.data.cache import cached; "
        "from kdx.data.source import Images\n"
        "class Slow(Images):\n"
        "    labels = None\n"
        "    def __len__(self): return 80\n"
        "    def __getitem__(self, i): time.sleep(0.01 if i < 70 else 60); return np.zeros((1, 2, 2), np.uint8)\n"
        "cached(Slow(), Path(sys.argv[1]), 'k', print)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.DEVNULL)
    draft = tmp_path / "k.part" / cache.PIXELS
    while not draft.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert draft.exists() and not (tmp_path / "k").exists()
    np.testing.assert_array_equal(cached(Uneven(), tmp_path, "k", said.append)[79], Uneven()[79])
    assert sorted(path.name for path in tmp_path.iterdir()) in (["k"], ["k", "k.lock"])


def test_too_small_a_disk_is_known_beforehand(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    images = ArrayImages(np.zeros((3, 3, 1000, 1000), np.uint8), None)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Disk(10, 5, 1_000_000))
    with pytest.raises(
        ValueError, match=r"needs 0\.01 GB in .*, 0\.00 GB are free: choose another data\.cache or data\.cache=null"
    ):
        cached(images, tmp_path, "k", said.append)
    assert not (tmp_path / "k").exists() and not (tmp_path / "k.part").exists()


def test_a_disk_that_fills_while_writing(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(ValueError, match=r"No space left on device.*choose another data\.cache or data\.cache=null"):
        cached(Uneven(), tmp_path, "k", said.append)
    assert not (tmp_path / "k").exists() and not (tmp_path / "k.part").exists()
    monkeypatch.undo()
    assert len(cached(Uneven(), tmp_path, "k", said.append)) == 80


def test_an_interrupted_writer_removes_its_draft(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(Uneven(), tmp_path, "k", said.append)
    assert not (tmp_path / "k").exists() and not (tmp_path / "k.part").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/cache.*choose another data\.cache or data\.cache=null"):
        cached(Uneven(), tmp_path / "file" / "cache", "k", said.append)


def test_two_at_once_write_once(tmp_path: Path) -> None:
    images, said = [Uneven(80, pause=0.002), Uneven(80, pause=0.002)], [[], []]
    threads = [threading.Thread(target=cached, args=(images[i], tmp_path, "k", said[i].append)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.decoded for one in images) == [0, 80 + cache.SAMPLE]
    assert any("Waiting for another process" in line for lines in said for line in lines)


def test_progress_is_told_with_what_is_left(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "EVERY_S", 0.0)
    cached(Uneven(), tmp_path, "k", said.append)
    assert any(line.startswith("decoded 40 of 80 images") and line.endswith("s to go") for line in said)


class Files(ArrayImages):
    """Images with the paths of files."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(np.zeros((count, 1, 2, 2), np.uint8), None)
        self.paths = np.array([os.fsencode(folder / f"{i}.png") for i in range(count)], np.bytes_)
        for path in self.paths:
            if not os.path.exists(path):
                Image.new("L", (2, 2)).save(os.fsdecode(path))


def test_the_key_of_files_changes_with_any_of_them(tmp_path: Path) -> None:
    before = key(Files(tmp_path, 3), "train")
    assert key(Files(tmp_path, 3), "train") == before != key(Files(tmp_path, 3), "val")
    assert key(Files(tmp_path, 4), "train") != before
    os.utime(tmp_path / "1.png", ns=(1, 1))
    touched = key(Files(tmp_path, 3), "train")
    assert touched != before
    images = Files(tmp_path, 3)
    (tmp_path / "1.png").unlink()
    assert key(images, "train") not in (touched, before)


def test_the_key_tells_contents_and_subsets_apart() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)
    images = ArrayImages(pixels, None)
    keys = [
        key(images, "train"),
        key(ArrayImages(pixels[::-1], None), "train"),
        key(Subset(images, np.array([0, 1])), "train"),
        key(Subset(images, np.array([0, 2])), "train"),
        key(GlyphImages("train", 9, "8B", 16, 0), "train"),
        key(GlyphImages("train", 9, "8B", 16, 1), "train"),
        key(Uneven(9), "train"),
        key(Uneven(9, bad=(0,)), "train"),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key(ArrayImages(pixels.copy(), None), "train")
