"""Whether timm's published weights can be downloaded: without a connection, the hub's own client retries for a minute."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import timm
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_OFFLINE

from kdx.networks import names

SECONDS = 3.0  # until a server counts as unreachable
FILES = ("model.safetensors", "pytorch_model.bin")  # as timm names weights on the hub, the first preferred


def source(architecture: str) -> dict[str, Any]:
    """Return the arguments by which `timm.create_model` finds the published weights: the file in the cache if offline.

    Raises ValueError, with the remedy, if the weights are neither in the cache nor reachable.
    """
    if architecture.startswith(names.FOLDER):
        return {}
    repository, url, files = _published(architecture)
    if not (repository or url) or (not (repository and HF_HUB_OFFLINE) and answers(url)):
        return {}
    found = (try_to_load_from_cache(repository, name) for name in files) if repository else ()
    if file := next((file for file in found if isinstance(file, str)), None):
        return {} if names.comes_from_elsewhere(architecture) else {"pretrained_cfg_overlay": {"file": file}}
    raise ValueError(
        f"Cannot download the pretrained weights of {architecture}: no connection. Offline, use "
        f"architecture={names.FOLDER}PATH, a folder that timm.models.save_for_hf has written where there is a connection, or "
        "pretrained=false and init=FILE"
    )


def _published(architecture: str) -> tuple[str | None, str, Sequence[str]]:
    """Return the repository on the hub, a URL and the files of published weights."""
    if names.comes_from_elsewhere(architecture):
        repository = architecture.partition(":")[2].partition("@")[0]
        return repository, hf_hub_url(repository, "config.json"), FILES
    cfg: Any = timm.models.get_pretrained_cfg(architecture)
    if cfg is None or not cfg.hf_hub_id:
        return None, (cfg and cfg.url) or "", ()
    files = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else FILES
    return cfg.hf_hub_id, hf_hub_url(cfg.hf_hub_id, files[0]), files


def answers(url: str) -> bool:
    """Return whether a server answers a request within a few seconds, whatever it answers."""
    outcome: list[bool] = []
    # Looking up a name has no timeout, so it happens in a thread.
    thread = threading.Thread(target=lambda: outcome.append(_answers(url)), daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return bool(outcome and outcome[0])


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
    except urllib.error.HTTPError as error:
        return error.code < 500  # else a proxy without connection
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the hub's client has its own certificates
    except (OSError, ValueError):
        return False
    return True
