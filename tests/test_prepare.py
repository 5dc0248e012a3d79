"""kdx-prepare writes what training would see, and says how to use it; its mistakes are told as kindly as training's."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdx.data.digits import Digits
from kdx.data.shards import Shards
from kdx.data.splits import carve

Command = Callable[..., tuple[int, str, str]]


def test_digits_go_through_shards_unchanged(command: Command, tmp_path: Path) -> None:
    code, out, err = command("prepare", "data=digits", "data.train_size=100", f"to={tmp_path}/shards")
    assert code == 0, err
    assert out.splitlines()[0].startswith("train: 100 images")
    expected = carve(Digits().splits(), val=0.2, test=0.3, train_size=100, seed=0)
    source = Shards(f"{tmp_path}/shards")
    assert (source.num_classes, source.channels, source.flip, source.mean) == (10, 1, False, Digits.mean)
    found = source.splits()
    assert set(found) == set(expected) == {"train", "val", "test"}
    for name, images in expected.items():
        assert len(found[name]) == len(images)
        np.testing.assert_array_equal(found[name].labels, images.labels)
        for i in range(0, len(images), 7):
            np.testing.assert_array_equal(found[name][i], images[i])


def test_the_line_it_prints_trains(command: Command, tiny: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = command("prepare", "data=digits300", f"to={tmp_path}/shards")
    assert code == 0, err
    name, *arguments = shlex.split(out.splitlines()[-1])
    assert name == "kdx-train" and arguments[-1] == "crop@data.eval_crop=resize"
    run = [
        "experiment=supervised_digits",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        f"hydra.run.dir={tmp_path}/run",
    ]
    code, _, err = command("train", *tiny, *run, *arguments)
    assert code == 0, err
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=digits"], "Missing required option: to=FOLDER"),
        (["data=digitz", "to=x"], "Did you mean 'digits'?"),
        (["data.trainsize=3", "to=x"], "Did you mean 'train_size'?"),
        (["data.train_size=-1", "to=x"], "data.train_size=-1: Input should be greater than or equal to 1"),
        (["data=glyphs", "data.source.train=0", "to=x"], "data.source.train=0: Input should be greater than or equal to 1"),
        (["data=glyphs", "+data.source.color=red", "to=x"], "Unknown key 'data.source.color'. Available: "),
        (
            ["data=shards", "to=x"],
            "Missing required option: data.root=FOLDER, s3://... or https://... Expected layout: ROOT/index.json",
        ),
        (["data=shards", "data.root=gone", "to=x"], "gone/index.json not found: expected layout: ROOT/index.json"),
        (["data.train_size=9999", "to=x"], "data.train_size=9999, but only 899 images are left for training"),
        (["to=s3://bucket/images"], "use to=FOLDER, then copy the folder"),
    ],
)
def test_mistakes_leave_with_2_and_no_folder(command: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, err = command("prepare", *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "x").exists()


def test_an_existing_data_set_is_kept(command: Command, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "index.json").write_text("mine")
    code, _, err = command("prepare", "data=digits", f"to={tmp_path}/shards")
    assert code == 2 and "already exists" in err
    assert (tmp_path / "shards" / "index.json").read_text() == "mine"
