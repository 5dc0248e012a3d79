"""Whether timm's published weights can be downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_OFFLINE

from kdx.networks import names
from kdx.run.connection import answers

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
