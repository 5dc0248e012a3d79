"""An export on the Hugging Face hub: byte-complete, loaded by timm, private; after a failure it is there still."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from fake_hub import TOKEN, FakeHub, connect, served, write_cache
from huggingface_hub import constants
from huggingface_hub.repocard_data import model_index_to_eval_results

from kdx.config.errors import ConfigError
from kdx.export.finished import read
from kdx.export.request import requested
from kdx.export.student import load

Values = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]
NAME = "me/student"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that this process is connected to, with a token."""
    hub = FakeHub()
    with served(hub) as url:
        connect(monkeypatch, url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("mode", ["regular", "lfs"])
def test_all_files_arrive_and_timm_loads_them(
    mode: str, server: FakeHub, digits_run: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.mode = mode
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", mode == "lfs")  # its way for small files, without its storage
    code, out, err = command("export", f"run={digits_run}", "format=[timm,safetensors]", f"push={NAME}")
    assert code == 0, err
    assert out.splitlines()[-1] == f"{server.url}/{NAME}"
    sent = files_of(digits_run / "export")
    assert {"config.json", "model.safetensors", "README.md", "student.safetensors"} < set(sent)
    assert hashes(server.received) == hashes(sent)
    assert set(server.objects) == (
        {hashes(sent)["model.safetensors"], hashes(sent)["student.safetensors"]} if mode == "lfs" else set()
    )
    assert [(one["organization"], one["name"], one["visibility"]) for one in server.created] == [("me", "student", "private")]
    unauthorized = [path for _, path, headers in server.requests if headers.get("authorization") != f"Bearer {TOKEN}"]
    assert not [path for path in unauthorized if path.startswith(("/api/repos", "/api/models"))]
    assert TOKEN not in out + err and not any(TOKEN.encode() in content for content in sent.values())

    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = write_cache(cache, NAME, server.received)
    snapshot.parents[1].rename(cache / "models--me--student")
    loaded = timm.create_model(f"hf-hub:{NAME}", pretrained=True, cache_dir=cache).eval()
    images = torch.rand(3, 1, 4, 4)
    student = load(read(str(digits_run)))
    mean, std = (torch.tensor(loaded.pretrained_cfg[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(loaded((images - mean) / std), student(images))
    assert f'timm.create_model("hf-hub:{NAME}", pretrained=True)' in server.received["README.md"].decode()


def test_the_hub_reads_the_metrics_in_the_card(server: FakeHub, digits_run: Path, command: Command, tmp_path: Path) -> None:
    config = digits_run / "config.yaml"
    source = "source:\n    _target_: kdx.data.hub.HubDataset\n    repository: me/pets@v2\n    cache: /home/me/.cache"
    config.write_text(
        config.read_text().replace("source:\n    _target_: kdx.data.digits.Digits\n    root: /where/it/was", source)
    )
    result = json.loads((digits_run / "metrics.json").read_text())
    (digits_run / "metrics.json").write_text(json.dumps({**result, "data": {"fingerprint": "f1n9er", "revision": "c" * 40}}))
    code, _, err = command("export", f"run={digits_run}", "format=timm", f"push={NAME}", "private=false")
    assert code == 0, err
    assert server.created[0]["visibility"] == "public"
    (tmp_path / "README.md").write_bytes(server.received["README.md"])
    card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "timm" and card.data.datasets == ["me/pets"]
    assert card.data.model_name == NAME
    results = {(one.metric_type, one.metric_name): one for one in card.data.eval_results or ()}
    assert results["accuracy", "Accuracy"].metric_value == 0.75
    assert results["nll", "NLL (nats) after temperature scaling"].metric_value == 0.4
    assert {(one.dataset_type, one.dataset_split, one.dataset_revision) for one in results.values()} == {
        ("me/pets", "test", "c" * 40)
    }
    assert model_index_to_eval_results(card.data.to_dict()["model-index"])[0] == NAME
    assert f"- data revision: {'c' * 40}" in card.text and "/home/me" not in card.content
    assert "T = 2.5000" in card.text and "## Classes" in card.text and "## Preprocessing" in card.text
    assert json.loads(server.received["config.json"])["calibration_temperature"] == 2.5


@pytest.mark.parametrize(
    ("place", "status", "told"),
    [
        ("/api/repos/create", 403, r"does not permit to write to it \(HTTP 403\): log in with another one"),
        ("/api/repos/create", 401, r"does not exist, or is private|does not permit to write"),
        (f"/api/models/{NAME}/commit", 500, "try again"),
        (f"/api/models/{NAME}/preupload", 404, "does not exist, or is private"),
        ("/lfs/", 403, "does not permit to write to it"),
    ],
)
def test_a_failure_loses_nothing_and_the_same_command_goes_on(
    place: str, status: int, told: str, server: FakeHub, digits_run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the attempts of the hub's client
    server.mode = "lfs"
    server.refuse = {(method, place): (status, {}) for method in ("POST", "PUT")}
    words = (f"run={digits_run}", "format=timm", f"push={NAME}")
    code, out, err = command("export", *words)
    assert (
        code == 1
        and "is exported, but not uploaded to me/student: " in err
        and "The same command exports and uploads it again" in err
    )
    assert re.search(told, err), err
    assert TOKEN not in out + err and "Traceback" not in err
    kept = files_of(digits_run / "export")
    assert {"config.json", "model.safetensors", "README.md", "export.json"} == set(kept) and not server.received
    server.refuse = {}
    again = command("export", *words)
    assert again[0] == 0, again
    assert hashes(server.received) == hashes(files_of(digits_run / "export"))


def test_without_a_connection_the_export_is_there(digits_run: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, _, err = command("export", f"run={digits_run}", "format=timm", f"push={NAME}")
    assert code == 1 and "no connection to http://127.0.0.1:9: connect. The same command" in err
    assert (digits_run / "export" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"push": "student"}, r"push=student is not a name on the hub; expected USER/NAME .*such as push=me/my-student"),
        ({"push": "https://huggingface.co/me/student"}, r": push=me/student$"),
        ({"push": "me/a--b"}, "not a name"),
        ({"format": ["safetensors"]}, r"requires the format that timm loads from the hub: format=\[timm,safetensors\]"),
        ({"private": "perhaps"}, "private=perhaps"),
        ({"token": None}, r"requires a token with permission to write: `hf auth login`, or set HF_TOKEN"),
        ({"offline": True}, "HF_HUB_OFFLINE is set: unset it, or leave out push"),
    ],
)
def test_what_cannot_be_uploaded_is_told_before_the_export(
    changed: dict[str, Any], told: str, values: Values, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", changed.pop("offline", False))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if "token" not in changed:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    asked = {"push": NAME, "format": ["timm"], **{key: value for key, value in changed.items() if key != "token"}}
    with pytest.raises(ConfigError, match=told):
        requested(values(digits_run, **asked))
