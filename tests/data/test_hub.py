"""Data sets of the Hugging Face hub: from its cache, in the layout of its client, or from a server; and what is refused."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fake_hub import COMMIT, FakeHub, connect, served, write_cache
from huggingface_hub import constants
from PIL import Image
from pyarrow import parquet

from kdx.data import hub as hub_data
from kdx.data.hub import HubDataset
from kdx.data.source import BadImageError, check_splits
from kdx.data.splits import fingerprint
from kdx.run import connection

NAME = "me/pets"


def png(value: int, channels: int = 3, side: int = 8) -> bytes:
    """One color, different for every value."""
    pixels = np.full((side, side, channels), value, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(stream, "PNG")
    return stream.getvalue()


def images(values: list[int], channels: int = 3) -> pa.Array:
    """A column of images, as `datasets` writes it: bytes and path."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.array([{"bytes": png(value, channels), "path": f"{value}.png"} for value in values], kind)


def file(columns: dict[str, Any], features: dict[str, Any] | None = None) -> bytes:
    """A parquet file in groups of three rows, with the features of `datasets` in its metadata."""
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    stream = io.BytesIO()
    parquet.write_table(table, stream, row_group_size=3)
    return stream.getvalue()


FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog", "emu"], "_type": "ClassLabel"}}


def part(values: range, features: dict[str, Any] | None = FEATURES, channels: int = 3) -> bytes:
    """Images of these values, whose label is the value modulo 3."""
    return file({"image": images(list(values), channels), "label": [value % 3 for value in values]}, features)


WHOLE = {
    "data/train-00000-of-00002.parquet": part(range(10)),
    "data/train-00001-of-00002.parquet": part(range(10, 15)),
    "data/validation-00000-of-00001.parquet": part(range(20, 22)),
    "data/test-00000-of-00001.parquet": part(range(30, 34)),
    "README.md": b"---\nlicense: mit\n---\n# Pets\n",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def source(cache: Path, tmp_path: Path) -> Callable[..., HubDataset]:
    """Write a data set to the cache, and return its source."""

    def make(files: dict[str, bytes], revision: str = "", **keys: Any) -> HubDataset:
        write_cache(cache, NAME, files)
        return HubDataset(NAME + revision, cache=str(tmp_path / "copies"), **keys)

    return make


def test_parquet_files_from_the_cache(source: Callable[..., HubDataset], tmp_path: Path) -> None:
    pets = source(WHOLE)
    pets.check()
    splits = pets.splits()
    check_splits(pets, splits)
    assert {name: len(images) for name, images in splits.items()} == {"train": 15, "val": 2, "test": 4}
    assert pets.names == ["cat", "dog", "emu"] and pets.num_classes == 3 and pets.revision == COMMIT
    train = splits["train"]
    assert [int(train[i][0, 0, 0]) for i in (14, 0, 9, 10)] == [14, 0, 9, 10] and train[3].shape == (3, 8, 8)
    assert train.labels is not None and train.labels.tolist() == [value % 3 for value in range(15)]
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "copies").iterdir()}
    again = HubDataset(NAME, cache=str(tmp_path / "copies"))
    assert fingerprint(again.splits()) == fingerprint(splits)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "copies").iterdir()} == written  # copied once
    next((tmp_path / "copies").glob("*.images")).write_bytes(b"cut off")
    assert [int(image[0, 0, 0]) for image in HubDataset(NAME, cache=str(tmp_path / "copies")).splits()["test"]] == [
        30,
        31,
        32,
        33,
    ]


def test_the_revision_is_part_of_the_fingerprint(source: Callable[..., HubDataset], cache: Path, tmp_path: Path) -> None:
    old, other = source(WHOLE), "f" * 40
    write_cache(cache, NAME, WHOLE, other, "v2")
    new = [HubDataset(f"{NAME}@{revision}", cache=str(tmp_path / "copies")) for revision in ("v2", other)]
    assert [one.revision for one in new] == [other, other]
    assert fingerprint(new[0].splits()) == fingerprint(new[1].splits()) != fingerprint(old.splits())
    assert HubDataset(f"{NAME}@{COMMIT}", cache=str(tmp_path / "copies")).revision == COMMIT


def test_gray_images_and_classes_of_the_card(source: Callable[..., HubDataset]) -> None:
    readme = b"""---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '10': ten
          '0': zero
          '2': two
---
"""
    gray = source({"train-0.parquet": part(range(9), None, channels=1), "README.md": readme}, channels=None)
    assert gray.channels == 1 and gray.splits()["train"][4].shape == (1, 8, 8)
    assert gray.names == ["zero", "two", "ten"]


def test_the_extra_is_named(source: Callable[..., HubDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"parquet files require pyarrow: pip install kdx\[parquet\]"):
        source(WHOLE).check()


def test_texts_are_classes(source: Callable[..., HubDataset]) -> None:
    columns = {"pixels": [png(value) for value in range(4)], "class": ["b", "a", "b", "c"]}
    texts = source({"train.parquet": file(columns)})
    assert texts.names == ["a", "b", "c"] and texts.splits()["train"].labels.tolist() == [1, 0, 1, 2]
    assert int(texts.splits()["train"][3][0, 0, 0]) == 3


def test_a_test_split_without_labels_is_left_out(source: Callable[..., HubDataset]) -> None:
    hidden = file({"image": images([1, 2]), "label": [-1, -1]}, FEATURES)
    pets = source({**WHOLE, "data/test-00000-of-00001.parquet": hidden})
    assert set(pets.splits()) == {"train", "val"} and pets.remarks() == [
        f"test of {NAME}@{COMMIT} has no labels, and is not used"
    ]


def test_columns_and_parts_are_chosen(source: Callable[..., HubDataset]) -> None:
    features = {
        "img": {"_type": "Image"},
        **{name: {"_type": "ClassLabel", "names": list("abcd")} for name in ("fine", "coarse")},
    }
    columns = {"img": images([1, 2, 3]), "fine": [0, 1, 3], "coarse": [2, 2, 1], "path": ["x", "y", "z"]}
    files = {"one/train/0000.parquet": file(columns, features), "two/partial-train/0000.parquet": part(range(3))}
    with pytest.raises(ValueError, match=r"several parts: choose one of data.source.config=one\|two"):
        source(files).check()
    with pytest.raises(ValueError, match=r"no part 'on'. Did you mean 'one'\?"):
        source(files, config="on").check()
    with pytest.raises(ValueError, match=r"several columns of labels: choose one of data.source.label=fine\|coarse"):
        source(files, config="one").check()
    with pytest.raises(ValueError, match=r"no column 'fin'. Did you mean 'fine'\?"):
        source(files, config="one", label="fin").check()
    with pytest.raises(ValueError, match=r"data.source.image=fine: the column is int64; expected the bytes of image files"):
        source(files, config="one", image="fine", label="fine").check()
    assert source(files, config="one", label="coarse").splits()["train"].labels.tolist() == [2, 2, 1]
    two = source(files, config="two")
    assert two.names == ["cat", "dog", "emu"] and len(two.splits()["train"]) == 3
    assert two.remarks() == [f"two/partial-train/0000.parquet says that the hub has converted only a part of {NAME}"]


def test_the_card_says_which_files_are_which_split(source: Callable[..., HubDataset]) -> None:
    readme = b"""---
configs:
- config_name: small
  data_files: [{split: train, path: a/*.parquet}, {split: validation, path: [b/x.parquet]}, {split: extra, path: b/z.parquet}]
- config_name: large
  default: true
  data_files: [{split: train, path: [a/*.parquet, b/x.parquet]}]
---
"""
    files = {"a/1.parquet": part(range(3)), "b/x.parquet": part(range(5)), "b/z.parquet": part(range(4)), "README.md": readme}
    assert {name: len(images) for name, images in source(files).splits().items()} == {"train": 8}
    small = source(files, config="small")
    assert {name: len(images) for name, images in small.splits().items()} == {"train": 3, "val": 5}
    assert small.remarks() == [f"The split extra of {NAME} is not used: it is not train, validation or test"]


@pytest.mark.parametrize("above", ["", "data/"])
def test_class_folders(source: Callable[..., HubDataset], above: str) -> None:
    names = [f"{split}/{kind}/{i}.png" for split in ("train", "validation") for kind in ("cat", "dog") for i in range(3)]
    files = {f"{above}{name}": png(i) for i, name in enumerate(names)}
    pets = source({**files, "README.md": b"# Pets", ".gitattributes": b""}, channels=None)
    pets.check()
    assert pets.names == ["cat", "dog"] and pets.channels == 3
    splits = pets.splits()
    assert splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1] and int(splits["val"][4][0, 0, 0]) == 10
    with pytest.raises(ValueError, match=r"data.source.image, label and config have no meaning there"):
        source({}, label="x").check()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"pets.py": b"import os", "data/images.tar.gz": b""}, r"needs its loading script pets.py, .* no code .*@refs/convert"),
        ({"x.zip": b"", "README.md": b""}, r"has archives, x.zip: unpack them .*`hf download me/pets --repo-type dataset"),
        ({"train-0.tar": b""}, r"tar files, train-0.tar: use data=webdataset"),
        ({"data.csv": b""}, "neither parquet files nor images in class folders, only data.csv"),
        ({"train/1.png": png(1), "train/2.png": png(2)}, "has no class folders"),
        ({"train.parquet": b"PAR1 no"}, "train.parquet cannot be read as parquet"),
        ({"train.parquet": file({"text": ["a"], "label": [1]})}, r"no column of images among text \(string\), label \(int64\)"),
        ({"train.parquet": file({"image": images([1]), "width": [8]})}, r"no column of labels .*data.source.label=width"),
        ({"train.parquet": file({"image": images([1]), "label": [[1, 2]]})}, "no column of labels .*use another data set"),
        ({"train.parquet": file({"image": images([1, 2]), "label": [1, None]})}, "1 of 2 rows of train have no label"),
        ({"train.parquet": file({"image": images([1, 2]), "label": [0, 0]})}, "Need at least 2 classes"),
        ({"a/extra.parquet": part(range(3)), "README.md": b"---\nconfigs: [{data_files: [{split: extra, path: a/*}]}]\n---"},
         r"has the splits extra, of which none is train"),
        ({"data/train-00000-of-00003.parquet": part(range(3))}, r"only some of its files \(only 1 of 3 files data/train-\*"),
    ],
)  # fmt: skip
def test_what_is_no_data_set_of_images_is_refused(
    source: Callable[..., HubDataset], files: dict[str, bytes], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        source(files).check()


def test_images_that_are_not_in_the_file(source: Callable[..., HubDataset]) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    only_paths = pa.array([{"bytes": None, "path": "a.png"}] * 2, kind)
    with pytest.raises(ValueError, match="the column image has no images, only paths of files"):
        source({"train.parquet": file({"image": only_paths, "label": [0, 1]})}).splits()
    one = pa.array([{"bytes": b"none", "path": ""}, {"bytes": png(1), "path": ""}], kind)
    with pytest.raises(BadImageError, match=r"image 0, at byte 0 of .* cannot be decoded"):
        source({"train.parquet": file({"image": one, "label": [0, 1]})}).splits()["train"][0]


@pytest.mark.parametrize(
    ("root", "told"),
    [
        (None, "Missing required option: data.root=USER/SET"),
        (".", "is a folder; .* For a folder: data=imagefolder"),
        ("https://huggingface.co/datasets/me/pets", "is not a name on the hub; .*: data.root=me/pets$"),
        ("a/b/c", "is not a name on the hub"),
        (
            "me/none",
            r"it is not in the cache .*hub, and HF_HUB_OFFLINE is set: unset it, or copy the folder datasets--me--none",
        ),
        (f"{NAME}@v9", "it is not in the cache"),
    ],
)
def test_what_is_not_there_is_told(source: Callable[..., HubDataset], root: str | None, told: str) -> None:
    source(WHOLE)
    with pytest.raises(ValueError, match=told):
        HubDataset(root).check()


def test_a_data_set_is_downloaded_once_and_then_needs_no_connection(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeHub()
    server.datasets[NAME] = {**WHOLE, "pets.py": b"raise SystemExit", "big.bin": b"x" * 1000}
    with monkeypatch.context() as patch, served(server) as url:
        connect(patch, url)
        with caplog.at_level(logging.INFO):
            splits = HubDataset(NAME, cache=str(tmp_path / "copies")).splits()
        assert "HTTP Request" not in caplog.text
        got = {path for _, path, _ in server.requests if "/resolve/" in path}
        with pytest.raises(ValueError, match=r"@v9: it has no such revision: .*/datasets/me/pets/tree/main lists"):
            HubDataset(f"{NAME}@v9").check()
        server.refuse = {("GET", "/api/datasets"): (500, {})}
        with caplog.at_level(logging.WARNING, "kdx"):
            assert HubDataset(NAME).revision == COMMIT
    assert "read from the cache" in caplog.text
    assert got == {f"/datasets/{NAME}/resolve/{COMMIT}/{name}" for name in WHOLE}  # neither the script nor the rest
    assert [int(image[0, 0, 0]) for image in splits["test"]] == [30, 31, 32, 33]
    assert fingerprint(HubDataset(NAME, cache=str(tmp_path / "copies")).splits()) == fingerprint(splits)  # offline
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # no connection
    assert HubDataset(NAME).revision == COMMIT


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "GatedRepo", r"conditions are to be accepted at http.*/datasets/me/pets; then log in: `hf auth login`, or"),
        (404, "RepoNotFound", r"does not exist, or is private: correct the name, or log in"),
        (401, "", r"does not exist, or is private|does not permit"),
        (429, "", r"too many requests"),
        (503, "", r"503.*try again"),
    ],
)  # fmt: skip
def test_a_refusal_of_the_hub_has_a_remedy(
    cache: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, told: str
) -> None:
    server = FakeHub()
    server.refuse = {("GET", "/api/datasets"): (status, {"X-Error-Code": code} if code else {})}
    with served(server) as url:
        connect(monkeypatch, url)
        with pytest.raises(ValueError, match=told):
            HubDataset(NAME).check()


def test_without_a_connection_it_fails_within_seconds(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"not in the cache .*, and no connection to http://127.0.0.1:9: connect, or copy"):
        HubDataset(NAME).check()
    assert time.monotonic() - began < connection.SECONDS + 2


def test_a_run_on_a_cached_data_set(cache: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    values = np.random.default_rng(0).permutation(250).tolist()
    kept = {"data/train-00000-of-00001.parquet": values[:120], "data/test-00000-of-00001.parquet": values[120:150]}
    files = {
        name: file({"image": images(some), "label": [value % 3 for value in some]}, FEATURES) for name, some in kept.items()
    }
    write_cache(cache, NAME, files)
    words = ["experiment=supervised_digits", "data=hub", f"data.root={NAME}", f"data.source.cache={tmp_path / 'copies'}"]
    words += ["logger=none", "trainer=cpu", "trainer.max_steps=2", "data.batch_size=16", "resolution.student=8"]
    code, _, err = command("train", *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, err
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["data"]["revision"] == COMMIT and 0 <= found["metrics"]["test/student/accuracy"] <= 1
    card = json.loads((tmp_path / "run" / "student.json").read_text())
    assert card["label_names"] == ["cat", "dog", "emu"] and f"revision {COMMIT}" in (tmp_path / "run" / "train.log").read_text()
    code, _, err = command("train", *words, f"data.root={NAME}2", f"hydra.run.dir={tmp_path / 'other'}")
    assert code == 2 and "it is not in the cache" in err and not (tmp_path / "other" / "run.json").exists()
    assert hub_data.NAME.fullmatch("mnist")
