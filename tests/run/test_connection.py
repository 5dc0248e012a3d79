"""A server counts as reachable within seconds, or not."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kdx.networks import downloads
from kdx.run import connection


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
        assert connection.answers(f"http://127.0.0.1:{server.server_port}/config.json") == answered
        thread.join()


@pytest.mark.parametrize("listening", [True, False])
def test_a_server_that_is_silent_or_gone_does_not_answer(monkeypatch: pytest.MonkeyPatch, listening: bool) -> None:
    monkeypatch.setattr(connection, "SECONDS", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        start = time.monotonic()
        assert not connection.answers(f"http://127.0.0.1:{server.getsockname()[1]}/config.json")
        assert time.monotonic() - start < 2


def test_a_name_that_is_looked_up_forever_counts_as_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SECONDS", -0.9)  # and the second for the lookup
    monkeypatch.setattr(connection, "_answers", lambda url: time.sleep(1))
    assert not connection.answers("http://nowhere.invalid")


def test_networks_without_published_weights_need_no_connection() -> None:
    assert downloads.source("cifar_resnet8") == {}
