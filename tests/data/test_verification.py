"""All damaged files of a data set are found at once, and only once."""

from __future__ import annotations

import io
import json
from pathlib import Path

import formats
import numpy as np
import pytest
from PIL import Image

from kdx.data import verification
from kdx.data.combined import Unlabeled
from kdx.data.decoding import ImageFiles, decode_image, fault
from kdx.data.folders import ImageFolder
from kdx.data.source import ArrayImages, BadImageError, Images, SplitName
from kdx.data.verification import Findings, listed, verify


def tree(root: Path) -> dict[str, str]:
    """Three classes in train and val, with damaged files; returned as path -> reason."""
    for split in ("train", "val"):
        formats.write_tree(root / split, {"a": 4, "b": 4}, ending="jpg")
    content = {"train/a/0001.jpg": b"", "train/b/0002.jpg": b"GIF89a", "val/b/0000.jpg": b"<html>404</html>"}
    for name, written in content.items():
        (root / name).write_bytes(written)
    gone = root / "val/a/0003.jpg"
    gone.unlink()
    gone.symlink_to(root / "nowhere.jpg")
    return {str(root / name): "" for name in [*content, "val/a/0003.jpg"]}


def test_all_damaged_files_at_once_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tree(tmp_path / "data")
    splits = ImageFolder(str(tmp_path / "data")).splits()
    found = verify(splits, tmp_path / "verified", print)
    assert set(found.damaged) == set(damaged) and (found.images, found.checked, found.colored) == (16, 16, 0)
    monkeypatch.setattr(verification, "fault", None)  # nothing is decoded again
    assert verify(splits, tmp_path / "verified", print) == found
    assert {len(json.loads(file.read_text())["damaged"]) for file in (tmp_path / "verified").glob("*.json")} == {2}
    monkeypatch.undo()
    repaired = next(path for path in damaged if path.endswith("train/a/0001.jpg"))
    formats.save(Path(repaired), formats.smooth(0))
    splits = ImageFolder(str(tmp_path / "data")).splits()
    assert set(verify(splits, tmp_path / "verified", print).damaged) == set(damaged) - {repaired}


def test_many_files_are_checked_by_size_and_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tree(tmp_path / "data")
    monkeypatch.setattr(verification, "DECODED", 5)
    monkeypatch.setattr(verification, "HEADERS", 4)
    said: list[str] = []
    found = verify(ImageFolder(str(tmp_path / "data")).splits(), tmp_path / "verified", said.append)
    assert found.checked == 8 and len(said) == 2 and "4 of 8 image files" in said[0]
    assert str(tmp_path / "data/train/a/0001.jpg") in found.damaged and set(found.damaged) <= set(damaged)


def test_only_files_are_checked_wherever_they_are(tmp_path: Path) -> None:
    tree(tmp_path)
    train = ImageFolder(str(tmp_path), channels=1).splits()["train"]
    arrays = ArrayImages(np.zeros((1, 1, 2, 2), np.uint8), None)
    splits: dict[SplitName, Images] = {"train": Unlabeled(train), "val": arrays, "test": Unlabeled(train)}
    found = verify(splits, tmp_path / "verified", print)
    assert (found.images, len(found.damaged)) == (8, 2)  # one set of files once
    assert found.colored == 6  # RGB files that are read in gray
    assert verify({"val": arrays}, tmp_path / "verified", print) == Findings()


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    damaged = tree(tmp_path / "data")
    (tmp_path / "file").touch()
    assert set(verify(ImageFolder(str(tmp_path / "data")).splits(), tmp_path / "file", print).damaged) == set(damaged)


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_fault_is_what_decoding_says_at_any_cut(ending: str, mode: str, tmp_path: Path) -> None:
    image, buffer = Image.fromarray(formats.noise(0, size=48).transpose(1, 2, 0)).convert(mode), io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper()))
    whole, path = buffer.getvalue(), tmp_path / f"x.{ending}"
    for size in [*range(0, len(whole), max(1, len(whole) // 40)), len(whole)]:
        path.write_bytes(whole[:size])
        try:
            decode_image(str(path), 3)
            expected = True
        except BadImageError:
            expected = False
        assert (fault(str(path))[0] is None) == expected, f"cut at {size} of {len(whole)} bytes"
    assert fault(str(path)) == (None, mode == "RGB" or ending == "webp")


def test_floats_are_refused_by_both(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    reason, _ = fault(str(tmp_path / "f.tif"))
    assert reason is not None and "unknown pixel range" in reason
    with pytest.raises(BadImageError, match="unknown pixel range"):
        ImageFiles([str(tmp_path / "f.tif")], None, 1)[0]


def test_a_long_list_is_cut() -> None:
    text = listed({f"{k:02d}.png": "not an image" for k in range(30)}, 100)
    assert text.startswith("30 of 100 images cannot be decoded: 00.png (not an image), 01.png") and text.endswith("and 10 more")
