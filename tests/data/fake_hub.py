"""A small Hugging Face hub on this machine: data sets to download, model repositories to upload to, and refusals."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH"


class FakeHub:
    """What the server has and what it received. `refuse` maps (method, start of the path) to (status, headers)."""

    def __init__(self) -> None:
        self.url = ""
        self.datasets: dict[str, dict[str, bytes]] = {}  # name -> path -> content
        self.mode = "regular"  # or lfs: how files are to be uploaded
        self.created: list[dict[str, Any]] = []
        self.received: dict[str, bytes] = {}  # in the last commit
        self.objects: dict[str, bytes] = {}  # of LFS, by SHA-256
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.refuse: dict[tuple[str, str], tuple[int, dict[str, str]]] = {}

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content for a request."""
        self.requests.append((method, path, headers))
        for (refused, start), (status, extra) in self.refuse.items():
            if method == refused and path.startswith(start):
                return status, extra, b'{"error": "refused"}'
        for name, files in self.datasets.items():
            if path.startswith(f"/api/datasets/{name}") and not path.startswith(f"/api/datasets/{name}/tree"):
                if "/revision/" in path and unquote(path.rpartition("/")[2]) not in ("main", COMMIT):
                    return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
                return self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]})
            if path.startswith(f"/api/datasets/{name}/tree/"):
                entries = [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in files.items()
                ]
                return self._json(entries)
            prefix = f"/datasets/{name}/resolve/{COMMIT}/"
            if path.startswith(prefix) and (file := unquote(path.removeprefix(prefix))) in files:
                tag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
                return 200, {"X-Repo-Commit": COMMIT, "ETag": tag}, files[file]
        if path.startswith("/api/datasets/"):
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        return self._upload(method, path, body)

    def _upload(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return self._json({"url": f"{self.url}/me/student"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = {name: self.mode if name.endswith((".safetensors", ".onnx")) else "regular" for name in files}
            return self._json({"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]})
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            action = [{**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}} for one in wanted]
            return self._json({"objects": action})
        if path.startswith("/lfs/"):
            self.objects[path.removeprefix("/lfs/")] = body
            return 200, {}, b""
        if "/commit/" in path:
            self.received = {}
            for line in body.splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    self.received[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    self.received[value["path"]] = self.objects[value["oid"]]
            return self._json({"commitUrl": f"{self.url}/me/student/commit/{COMMIT}", "commitOid": COMMIT})
        return (200, {}, b"") if method == "HEAD" else (404, {}, b"{}")

    @staticmethod
    def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


@contextmanager
def served(hub: FakeHub) -> Iterator[str]:
    """The address of a server that answers as `hub` does."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = hub.answer(
                self.command, urlsplit(self.path).path, body, {name.lower(): value for name, value in self.headers.items()}
            )
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = handle_one

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        yield hub.url
        server.shutdown()
        thread.join()


def connect(patch: pytest.MonkeyPatch, url: str) -> None:
    """Let the hub's client of this process ask the server at `url`, as HF_ENDPOINT does for a process that starts."""
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # xet's storage is another server


def write_cache(cache: Path, name: str, files: dict[str, bytes], commit: str = COMMIT, ref: str | None = "main") -> Path:
    """A data set in the hub's cache, as its client writes it; return the folder of the snapshot."""
    folder = cache / f"datasets--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for path, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = snapshot / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to("../" * (2 + path.count("/")) + f"blobs/{blob.name}")
    if ref is not None:
        (folder / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot
