"""Files by path or URL: s3://..., https://... and all other protocols of fsspec."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from kdx.run.masking import MASK

T = TypeVar("T")

OTHER_CONTENT = "its SHA-256 is not the one in index.json: the shard was damaged or replaced"
TRIES, PAUSE_S = 3, 1.0  # the pause doubles


def remote(root: str) -> bool:
    """Return whether `root` is a URL and not a path."""
    return "://" in root


def read(url: str, absent: str, remedy: str) -> bytes:
    """A file's content. ValueError ends with `absent` if there is no such file, else with `remedy`."""

    def fetch() -> bytes:
        if not remote(url):
            return Path(url).read_bytes()
        system, path = _system(url)
        content: bytes = system.cat_file(path)
        return content

    return _patiently(fetch, url, absent, remedy)


def download(url: str, path: Path, sha256: str, remedy: str) -> None:
    """Fetch `url` to `path`, whole, with this SHA-256, or not at all. OSError if it cannot be kept, else ValueError."""
    draft = path.with_suffix(".part")

    def fetch() -> None:
        system, remote_path = _system(url)
        system.get_file(remote_path, str(draft))
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise ValueError(OTHER_CONTENT)

    try:
        _patiently(fetch, url, remedy, remedy)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _system(url: str) -> tuple[Any, str]:
    """Return the file system for `url` and the path in it; created at each call, because fsspec's do not survive a fork."""
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ImportError(f"{url}: {error}: install kdx[shards], or give a folder, s3://... or https://...") from None


def _patiently(fetch: Callable[[], T], url: str, absent: str, remedy: str) -> T:
    """What `fetch` returns, which is tried TRIES times. ValueError names `url` and the remedy; OSError: this disk is full."""
    if MASK in url:
        raise ValueError(f"{url}: user and password were masked in the config of a run: give the URL again, with data.root=URL")
    for attempt in range(TRIES):
        try:
            return fetch()
        except ImportError as error:
            raise ValueError(str(error)) from None
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"{url} not found: {absent}") from None
        except Exception as error:  # each kind of storage raises its own exceptions
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            if attempt == TRIES - 1 or not remote(url):
                hint = "check the address, the connection and the credentials, or " if remote(url) else ""
                raise ValueError(f"{url} cannot be read ({type(error).__name__}: {error}): {hint}{remedy}") from None
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("TRIES is positive")
