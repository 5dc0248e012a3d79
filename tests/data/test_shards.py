"""Shards: the same pixels from a folder, HTTP and S3; what vanished or was changed is named."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdx.data import remote, shard_writer, shards
from kdx.data.shard_writer import write_dataset, write_shards
from kdx.data.shards import Shards
from kdx.data.source import ArrayImages, BadImageError, Images, Source, Subset


class Files(Images):
    """A JPEG, a PNG, a CMYK JPEG, a palette GIF and a truncated JPEG, in this order; all RGB once decoded."""

    def __init__(self, folder: Path) -> None:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 18, 3), np.uint8))
        picture.save(folder / "0.jpg")
        picture.save(folder / "1.png")
        picture.convert("CMYK").save(folder / "2.jpg")
        picture.convert("P").save(folder / "3.gif")
        (folder / "4.jpg").write_bytes((folder / "0.jpg").read_bytes()[:300])
        self.paths = np.array([os.fsencode(folder / name) for name in ("0.jpg", "1.png", "2.jpg", "3.gif", "4.jpg")], np.bytes_)
        self.labels = np.array([0, 1, 2, 0, 1])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            with Image.open(os.fsdecode(self.paths[index])) as image:
                return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except OSError:
            raise BadImageError(f"{os.fsdecode(self.paths[index])} is bad") from None


class Gray(Source):
    """Three classes of gray noise of two sizes, named."""

    num_classes = 3
    channels = 1
    flip = False
    mean = (0.4,)
    std = (0.2,)
    names = ("a", "b", "c")

    def splits(self) -> dict[str, Images]:
        pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 9, 7), np.uint8)
        labels = np.arange(40) % 3
        return {"train": ArrayImages(pixels[:30], labels[:30]), "test": ArrayImages(pixels[30:, :, :5], labels[30:])}


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "PAUSE_S", 0.0)
    monkeypatch.setenv("HOME", str(tmp_path))  # where verified shards are remembered
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 700)  # some seven images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_dataset(Gray(), Gray().splits(), tmp_path / "root", lambda line: None)
    return tmp_path / "root"


def equal(found: Source, expected: Source) -> None:
    assert list(found.splits()) == list(expected.splits())
    for name in ("num_classes", "channels", "flip", "mean", "std", "labels", "train_labels"):
        assert getattr(found, name) == getattr(expected, name)
    for name, images in expected.splits().items():
        read = pickle.loads(pickle.dumps(found.splits()[name]))
        assert len(read) == len(images)
        np.testing.assert_array_equal(read.labels, images.labels)
        for i in (*range(len(images)), 0, -1):
            np.testing.assert_array_equal(read[i], images[i])
            assert read[i].flags.writeable


class Server:
    """An HTTP server of a folder on loopback, which counts what it is asked for; the first `failing` answers are errors."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.failing = 0
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if outer.failing:
                    outer.failing -= 1
                    self.send_error(500)
                else:
                    super().do_GET()

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    server = Server(root)
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_local_round_trip(root: Path) -> None:
    assert len(list((root / "train").glob("*.shard"))) > 2
    equal(Shards(str(root)), Gray())
    assert json.loads((root / "index.json").read_text())["names"] == ["a", "b", "c"]


def test_http_round_trip_downloads_each_shard_once(server: Server, tmp_path: Path) -> None:
    equal(Shards(server.url, str(tmp_path / "cache")), Gray())
    equal(Shards(server.url + "/", str(tmp_path / "cache")), Gray())
    fetched = [path for path in server.asked if path.endswith(".shard")]
    assert len(fetched) == len(set(fetched)) == len(list((tmp_path / "cache").glob("*.shard"))) > 2


def test_nothing_is_downloaded_before_it_is_needed(server: Server, tmp_path: Path) -> None:
    source = Shards(server.url, str(tmp_path / "cache"))
    assert not server.asked
    source.splits()["train"][0]
    assert [path for path in server.asked if path.endswith(".shard")] == ["/train/00000.shard"]


def test_s3_round_trip(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="images")
        for path in root.rglob("*.*"):
            client.upload_file(str(path), "images", f"some/where/{path.relative_to(root)}")
        equal(Shards("s3://images/some/where", str(tmp_path / "cache")), Gray())
        with pytest.raises(ValueError, match=r"s3://images/nowhere/index\.json not found: expected layout: ROOT/index\.json"):
            Shards("s3://images/nowhere").check()
        client.delete_object(Bucket="images", Key="some/where/test/00000.shard")
        source = Shards("s3://images/some/where", str(tmp_path / "other"))
        with pytest.raises(ValueError, match=r"s3://images/some/where/test/00000\.shard not found: write or copy"):
            source.splits()["test"][0]
    finally:
        server.stop()


def test_a_server_that_stumbles_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.failing = remote.TRIES - 1
    Shards(server.url).check()
    server.failing = remote.TRIES
    with pytest.raises(ValueError, match=r"index\.json cannot be read \(.*500.*check the address, the connection"):
        Shards(server.url).check()


def test_a_shard_that_vanished(server: Server, root: Path, tmp_path: Path) -> None:
    downloaded, local = Shards(server.url, str(tmp_path / "cache")).splits()["train"], Shards(str(root)).splits()["train"]
    (root / "train" / "00000.shard").unlink()
    for images in (downloaded, local):
        with pytest.raises(
            ValueError,
            match=r"train/00000\.shard.*(not found|is missing): write or copy the data set again \(kdx-prepare",
        ) as caught:
            images[0]
        assert not isinstance(caught.value, BadImageError)  # data.on_bad_image=skip is not for a part of the data set
        assert images[29].shape == (1, 9, 7)


def test_a_shard_that_was_changed(server: Server, root: Path, tmp_path: Path) -> None:
    path = root / "train" / "00000.shard"
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes(40) + content[80:])
    with pytest.raises(
        ValueError, match=r"00000\.shard cannot be read \(ValueError: its SHA-256 is not the one in index\.json"
    ):
        Shards(server.url, str(tmp_path / "cache")).splits()["train"][0]
    assert not list((tmp_path / "cache").glob("*.shard")) and not list((tmp_path / "cache").glob("*.part"))
    with pytest.raises(ValueError, match=r"00000\.shard: its SHA-256 is not the one in index\.json"):
        Shards(str(root)).splits()["train"][0]
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"has {len(content) - 1} bytes instead of {len(content)}"):
        Shards(str(root)).splits()["train"][0]


def test_a_cached_shard_that_was_cut_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    images = Shards(server.url, str(tmp_path / "cache")).splits()["train"]
    expected = images[0]
    (path,) = (tmp_path / "cache").glob("*.shard")
    os.truncate(path, 10)
    np.testing.assert_array_equal(images[0], expected)


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/cache .*: choose another data\.source\.cache"):
        Shards(server.url, str(tmp_path / "file" / "cache")).splits()["train"][0]


@pytest.mark.parametrize("part", ["index.json", "train/index.json"])
def test_an_index_that_vanished_or_broke(root: Path, part: str) -> None:
    path = root / part
    broken = {"{": "is not an index of shards", "[]": "is not an index of shards", '{"version": 9}': "has version 9"}
    for text, message in broken.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{part} {message}.*kdx-prepare"):
            Shards(str(root)).splits()
    path.unlink()
    with pytest.raises(ValueError, match=rf"{part} not found: expected layout: ROOT/index\.json, ROOT/train/.*kdx-prepare"):
        Shards(str(root)).splits()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "C:\\x", "C:x", "a/../../x", "..", "", "~/x", "//host/x"])
@pytest.mark.parametrize("key", ["file", "sha256"])
def test_an_index_names_only_files_of_its_folder(root: Path, name: str, key: str) -> None:
    index = json.loads((root / "train" / "index.json").read_text())
    index["shards"][0][key] = name
    (root / "train" / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="expected a file in its folder: write or copy the data set again"):
        Shards(str(root)).splits()


def test_a_shard_that_is_a_link_out_of_the_data_set(root: Path, tmp_path: Path) -> None:
    shard, elsewhere = root / "train" / "00000.shard", tmp_path / "elsewhere"
    elsewhere.write_bytes(shard.read_bytes())
    shard.unlink()
    shard.symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"is a link to a file outside of .*: copy that file to its place"):
        Shards(str(root)).splits()["train"][0]
    (tmp_path / "linked").symlink_to(root)  # the data set itself may be one
    assert Shards(str(tmp_path / "linked")).splits()["test"][0].shape == (1, 5, 7)


def test_a_local_shard_is_verified_once_and_again_when_it_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, read = root / "train" / "00000.shard", []
    whole = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(file.name) or whole(file, name))
    for _ in range(2):
        images = Shards(str(root)).splits()["train"]
        assert images[0] is not None and images[1] is not None
    assert read == [str(shard)]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(0, 0))
    with pytest.raises(ValueError, match=r"00000.shard: its SHA-256 is not the one in index.json: .* write or copy"):
        images[0]


def test_labels_beyond_the_classes_and_lists_of_other_lengths(root: Path) -> None:
    path = root / "train" / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "labels": [3] * 30}))
    with pytest.raises(ValueError, match=r"train/index\.json: label 3 out of range for 3 classes"):
        Shards(str(root)).splits()
    path.write_text(json.dumps({**index, "labels": [0]}))
    with pytest.raises(ValueError, match="images, sizes and labels differ"):
        Shards(str(root)).splits()


def test_no_root_and_an_unknown_kind_of_root() -> None:
    with pytest.raises(ValueError, match=r"Missing required option: data\.root=FOLDER"):
        Shards(None).check()
    with pytest.raises(ValueError, match=r"gopher://x/index\.json.*give a folder, s3://"):
        Shards("gopher://x").check()


def test_originals_are_kept_where_they_decode_to_the_same(tmp_path: Path) -> None:
    images = Files(tmp_path)
    order = np.array([1, 0, 3, 2])
    write_shards(Subset(images, order), tmp_path / "train", lambda line: None)
    content = b"".join(path.read_bytes() for path in sorted((tmp_path / "train").glob("*.shard")))
    assert (tmp_path / "0.jpg").read_bytes() in content and (tmp_path / "1.png").read_bytes() in content
    assert (tmp_path / "2.jpg").read_bytes() not in content
    read = shards.ShardImages(str(tmp_path / "train"), tmp_path, json.loads((tmp_path / "train" / "index.json").read_text()))
    for row, i in enumerate(order):
        np.testing.assert_array_equal(read[row], images[i])


def test_a_bad_image_stops_the_writer_or_is_left_out_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(BadImageError, match=r"4\.jpg is bad"):
        write_shards(Files(tmp_path), tmp_path / "train", said.append)
    assert not (tmp_path / "train").exists() and not list(tmp_path.glob(".*"))
    write_shards(Files(tmp_path), tmp_path / "train", said.append, skip_bad=True)
    assert "skipped" in said[0] and said[1].startswith("train: 4 images")
    assert json.loads((tmp_path / "train" / "index.json").read_text())["labels"] == [0, 1, 2, 0]


def test_a_full_disk_leaves_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match=r"No space left on device.*free disk space, or choose another folder"):
        write_dataset(Gray(), Gray().splits(), tmp_path / "root", lambda line: None)
    assert not list((tmp_path / "root").iterdir())


def test_an_existing_data_set_is_not_overwritten(root: Path) -> None:
    with pytest.raises(ValueError, match="already exists"):
        write_dataset(Gray(), Gray().splits(), root, lambda line: None)


def test_processes_share_a_download(server: Server, tmp_path: Path) -> None:
    from torch.utils.data import DataLoader

    images = Shards(server.url, str(tmp_path / "cache")).splits()["train"]
    _ = images[0]  # the file system has been used before the fork
    workers = DataLoader(images, batch_size=None, num_workers=2, sampler=list(range(30)))
    for i, image in enumerate(workers):
        np.testing.assert_array_equal(image, images[i])
    fetched = [path for path in server.asked if path.endswith(".shard")]
    assert len(fetched) == len(set(fetched))
