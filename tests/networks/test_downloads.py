"""Published weights without a connection: from the cache, from a folder, or a refusal within seconds."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from kdx.networks import downloads, weights
from kdx.networks.names import located
from kdx.networks.network import Network


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "answers", lambda url: False)
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda repository, name: None)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("architecture", ["resnet18", "resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"])
def test_offline_it_is_refused_with_the_remedies(architecture: str) -> None:
    with pytest.raises(ValueError, match=f"Cannot download the pretrained weights of {architecture}.*local-dir:.*init=FILE"):
        Network(architecture, 10, pretrained=True)


@pytest.mark.usefixtures("offline")
def test_offline_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model("resnet10t", num_classes=1000)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    assert weights.digest(Network("resnet10t", 1000, pretrained=True).model) == weights.digest(model)


def test_a_folder_that_timm_saved_is_an_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "answers", lambda url: pytest.fail("a folder needs no connection"))
    model = timm.create_model("resnet10t", num_classes=10)
    timm.models.save_for_hf(model, tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    name = located("local-dir:saved")
    assert name == f"local-dir:{tmp_path / 'saved'}" and located("resnet18") == "resnet18"
    assert weights.digest(Network(name, 10, pretrained=True).model) == weights.digest(model)
    for file in (tmp_path / "saved").glob("*"):
        if file.suffix != ".json":
            file.unlink()
    with pytest.raises(ValueError, match="Cannot load the pretrained weights of local-dir:"):
        Network(name, 10, pretrained=True)


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No config\.json in the folder of 'local-dir:.*save_for_hf"):
        located(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(("status", "answered"), [(200, True), (404, True), (403, True), (503, False)])
def test_a_server_answers_whatever_it_answers(status: int, answered: bool) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert downloads.answers(f"http://127.0.0.1:{server.server_port}/config.json") == answered
        thread.join()


@pytest.mark.parametrize("listening", [True, False])
def test_a_server_that_is_silent_or_gone_does_not_answer(monkeypatch: pytest.MonkeyPatch, listening: bool) -> None:
    monkeypatch.setattr(downloads, "SECONDS", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        start = time.monotonic()
        assert not downloads.answers(f"http://127.0.0.1:{server.getsockname()[1]}/config.json")
        assert time.monotonic() - start < 2


def test_a_name_that_is_looked_up_forever_counts_as_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SECONDS", -0.9)  # and the second for the lookup
    monkeypatch.setattr(downloads, "_answers", lambda url: time.sleep(1))
    assert not downloads.answers("http://nowhere.invalid")


def test_networks_without_published_weights_need_no_connection() -> None:
    assert downloads.source("cifar_resnet8") == {}
