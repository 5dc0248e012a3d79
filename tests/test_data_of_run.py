"""The data of a run is checked and described before anything is trained."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import formats
import numpy as np
import pytest

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.data.source import ArrayImages, Images, SplitName
from kdx.experiment import build
from kdx.experiment import data as data_of_run
from kdx.experiment.data import absent_classes, check_images, read_data, warn_of_duplicates
from kdx.networks import weights
from kdx.networks.network import Network

Command = Callable[..., tuple[int, str, str]]
Config = Callable[..., RunConfig]
TINY = ("logger=none", "trainer=cpu", "trainer.max_epochs=1", "teacher.recipe.trainer.max_epochs=1")
COUNTS = {"ant": 20, "bee": 20}


def tree(root: Path, **counts: dict[str, int]) -> Path:
    """A folder with these splits."""
    for k, (split, classes) in enumerate(counts.items()):
        formats.write_tree(root / split, classes, first=100 * k, ending="jpg")
    return root


def overrides(root: Path, *more: str) -> list[str]:
    """Overrides of a run on a folder, small."""
    return ["data=imagefolder", f"data.root={root}", "data.batch_size=8", "experiment=none", *more]


def messages(caplog: pytest.LogCaptureFixture, parts: build.Parts, **arguments: Any) -> list[str]:
    """The log of `read_data` and `check_images`."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="kdx"):
        published, _ = read_data(parts, **{"describe": True, **arguments})
        check_images(parts, published)
    return [record.getMessage() for record in caplog.records if record.name == "kdx"]


def test_the_data_is_described_in_two_lines(config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree(tmp_path / "data", Train=COUNTS, Valid={"ant": 6, "bee": 4})
    parts = build.parts(config(*overrides(root)))
    assert messages(caplog, parts) == [
        "Data: 40 train, 6 val, 4 test images of 2 classes, RGB",
        "Carved by data.split_seed=0: test from val",
    ]
    assert messages(caplog, parts, describe=False) == []
    parts = build.parts(config(*overrides(root, "data.test_from=train", "data.channels=1")))
    shutil.rmtree(root / "Valid" / "bee")
    assert messages(caplog, parts) == [
        "Data: 36 train, 6 val, 4 test images of 2 classes, gray",
        "Carved by data.split_seed=0: test from train",
        "val has no image of 1 of 2 classes ('bee'): its metrics do not cover them",
        "46 of 46 images have colors, but are read in gray: set data.channels=3 to keep the colors",
    ]


def test_inferred_channels_are_recorded(config: Config, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(20):
            formats.save(tmp_path / "gray" / name / f"{i}.png", formats.noise(i, 1, 8))
    recorded = build.parts(config(*overrides(tmp_path / "gray"))).config
    assert recorded.data.channels == recorded.data.source["channels"] == 1
    shutil.rmtree(tmp_path / "gray")
    assert build.unchecked(recorded).source.channels == 1  # a finished run is read without its data
    root = tree(tmp_path / "data", train=COUNTS)
    assert build.parts(config(*overrides(root, "data.channels=1"))).source.channels == 1
    assert build.parts(config(*overrides(root, "data.source.channels=1"))).config.data.source["channels"] == 1
    assert build.parts(config()).config == config()  # digits infer nothing


@pytest.mark.parametrize("in_channels", [1, 3])
def test_gray_images_are_read_as_the_weights_expect(
    in_channels: int, config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        formats.save(tmp_path / "gray" / name / "0.png", formats.noise(0, 1, 8))
    network = Network("mobilenetv3_small_050", 2, in_channels)  # with depthwise convolutions before the first by name
    weights.save(network.model, network.card, tmp_path / "teacher.safetensors")
    own = ["network@teacher.network=timm", "teacher.network.architecture=mobilenetv3_small_050"]
    own = overrides(tmp_path / "gray", *own, f"teacher.checkpoint={tmp_path}/teacher.safetensors")
    with caplog.at_level(logging.INFO, logger="kdx"):
        parts = build.parts(config(*own))
    assert parts.source.channels == parts.config.data.channels == in_channels
    assert ("read as RGB for the weights of teacher" in caplog.text) == (in_channels == 3)
    assert build.parts(config(*own, "data.channels=1")).source.channels == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.channels=3"], "data.channels=3, but Digits has 1: remove data.channels"),
        (["data.batch_size=2000"], "for 899 training images"),
    ],
)
def test_settings_that_do_not_fit_the_data(config: Config, more: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_data(build.parts(config("experiment=none", "data=digits", *more)), describe=False)


def test_damaged_files_stop_a_run_before_its_teacher(command: Command, tmp_path: Path) -> None:
    root = tree(tmp_path / "data", train=COUNTS, test=COUNTS)
    damaged = [root / "train/ant/0003.jpg", root / "train/bee/0005.jpg", root / "test/bee/0002.jpg"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:300])
    run = [
        *overrides(root),
        "resolution.teacher=8",
        "resolution.student=4",
        "logger=none",
        "trainer=cpu",
        f"hydra.run.dir={tmp_path}/run",
    ]
    code, _, err = command("train", *run)
    assert code == 2 and "3 of 80 images cannot be decoded" in err and "use data.on_bad_image=skip" in err
    assert all(str(path) in err for path in damaged)
    assert not (tmp_path / "outputs" / "teachers").exists() and not (tmp_path / "run" / "config.yaml").exists()
    code, _, err = command("train", *run, "data.batch_size=512")  # sizes are checked first
    assert code == 2 and "Invalid data.batch_size=512 for 36 training images" in err


def test_damaged_files_may_be_skipped_or_not_looked_for(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tree(tmp_path / "data", train=COUNTS, val=COUNTS, test=COUNTS)
    (root / "val/ant/0000.jpg").write_bytes(b"")
    said = messages(caplog, build.parts(config(*overrides(root, "data.on_bad_image=skip"))))
    assert said[1:] == [
        f"1 of 120 images cannot be decoded: {root}/val/ant/0000.jpg (the file is empty). They are skipped "
        "(data.on_bad_image=skip)"
    ]
    parts = build.parts(config(*overrides(root)))
    with pytest.raises(ConfigError, match="1 of 120 images cannot be decoded"):
        check_images(parts, read_data(parts, describe=False)[0])
    parts.config = replace(parts.config, data=replace(parts.config.data, verify=False))
    assert len(messages(caplog, parts)) == 1


def test_absent_classes_are_named() -> None:
    def images(*labels: int) -> Images:
        return ArrayImages(np.zeros((len(labels), 1, 2, 2), np.uint8), np.array(labels, np.int64))

    splits: dict[SplitName, Images] = {"test": images(0, 8), "train": images(*range(8)), "val": images(*range(9))}
    assert absent_classes(splits, [f"c{k}" for k in range(9)], 9) == [
        "train has no image of 1 of 9 classes ('c8'): they cannot be learned from its labels",
        "test has no image of 7 of 9 classes ('c1', 'c2', 'c3', 'c4', 'c5', ...): its metrics do not cover them",
    ]
    assert "(1, 2, 3, 4, 5, ...)" in absent_classes(splits, None, 9)[1]


@pytest.mark.long
def test_a_run_describes_its_data_once(command: Command, tmp_path: Path) -> None:
    root = tree(tmp_path / "data", train=COUNTS, valid=COUNTS)
    small = ["resolution.teacher=8", "resolution.student=4", "preflight=off", "baselines=[scratch]"]
    code, _, err = command("train", *TINY, *overrides(root, *small), f"hydra.run.dir={tmp_path}/run")
    assert code == 0, err
    assert err.count("Data: ") == err.count("Carved by") == 1


def test_duplicates_are_searched_on_the_first_rank_and_not_among_many(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "data", train=COUNTS, test=COUNTS)
    shutil.copy(root / "train/ant/0000.jpg", root / "test/bee/copy.jpg")
    parts = build.parts(config(*overrides(root)))
    _, splits = read_data(parts, describe=False)
    data, folder = parts.config.data, tmp_path / "verified"
    splits = {**splits, "train": splits["train"].images}  # type: ignore[attr-defined]  # with the images of val
    assert warn_of_duplicates(data, splits, folder) == 1
    assert "1 of 41 test images are also in train" in caplog.text
    monkeypatch.setattr(data_of_run, "rank", lambda: 1)
    assert warn_of_duplicates(data, splits, folder) is None
    monkeypatch.undo()
    assert warn_of_duplicates(replace(data, check_duplicates=False), splits, folder) is None
    monkeypatch.setattr(data_of_run, "MOST", 80)
    with caplog.at_level(logging.INFO, logger="kdx"):
        assert warn_of_duplicates(data, splits, folder) is None
    assert "data.check_duplicates=true searches them" in caplog.text
    assert warn_of_duplicates(replace(data, check_duplicates=True), splits, folder) == 1
