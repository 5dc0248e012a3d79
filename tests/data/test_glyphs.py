"""Glyphs are a pure function of seed, split and index, balanced, and legible where they should be."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from kdx.config.check import conf_dir
from kdx.data import glyphs
from kdx.data.glyphs import Glyphs
from kdx.data.source import SPLITS

YAML = OmegaConf.to_container(OmegaConf.load(conf_dir() / "data" / "glyphs.yaml").source)
YAML.pop("_target_")


def small(**arguments: object) -> Glyphs:
    return Glyphs(**{**YAML, "train": 96, "val": 32, "test": 48, "size": 32, **arguments})


def test_splits_have_the_sizes_asked_for_and_balanced_classes() -> None:
    source = small()
    for name, count in zip(SPLITS, (96, 32, 48), strict=True):
        images = source.splits()[name]
        assert len(images) == count and images.labels is not None and images.labels.dtype == np.int64
        assert (np.bincount(images.labels, minlength=source.num_classes) == count // 16).all()


@pytest.mark.parametrize("size", [4, 33, 64])
def test_an_image_is_uint8_gray_of_the_size_asked_for_and_shows_something(size: int) -> None:
    image = small(size=size).splits()["train"][3]
    assert image.shape == (1, size, size) and image.dtype == np.uint8 and image.flags.writeable
    assert image.std() > 5


def test_an_image_depends_on_seed_split_and_index_only() -> None:
    one, other = small().splits()["train"], pickle.loads(pickle.dumps(small(train=7, val=3).splits()["train"]))
    np.testing.assert_array_equal(other[5], [one[i] for i in (17, 5)][1])  # whatever was drawn before, however many there are
    assert (one[5] != small(seed=1).splits()["train"][5]).any()


def test_splits_share_no_image() -> None:
    seen = [image.tobytes() for images in small().splits().values() for image in (images[i] for i in range(len(images)))]
    assert len(set(seen)) == len(seen) == 96 + 32 + 48


def test_the_end_of_a_split_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        small().splits()["val"][32]


def test_mean_and_std_are_those_of_the_pixels() -> None:
    images = Glyphs(**YAML).splits()["train"]
    found = np.stack([images[i] for i in range(1600)]) / 255
    assert Glyphs.mean == pytest.approx((found.mean(),), abs=5e-3)
    assert Glyphs.std == pytest.approx((found.std(),), abs=5e-3)


@pytest.mark.parametrize("classes", ["8", "88", "8é", "8 ", ""])
def test_classes_that_cannot_be_drawn_are_refused(classes: str) -> None:
    with pytest.raises(ValueError, match="set two or more different letters and digits"):
        small(classes=classes)


def test_fewer_classes() -> None:
    source = small(classes="8B5S")
    assert source.num_classes == 4 and set(source.splits()["train"].labels.tolist()) == {0, 1, 2, 3}


def test_without_the_faces_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(glyphs, "FACES", ("DejaVuGone",))
    glyphs.faces.cache_clear()
    with pytest.raises(ValueError, match=r"Missing .*DejaVuGone\.ttf.*--reinstall matplotlib"):
        small().check()
    glyphs.faces.cache_clear()


def test_matplotlib_is_not_imported() -> None:
    draw = "import sys; from kdx.data.glyphs import GlyphImages; GlyphImages('val', 9, '8B', 16, 0)[0]"
    code = f"{draw}; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
