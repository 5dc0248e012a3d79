"""The weights of a network: saved, loaded from a file of any trainer, used as a start, and their digest."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from kdx.networks import grids, weight_files, weight_search
from kdx.networks.fitting import Fit, names_of_head
from kdx.networks.weight_files import shapes

__all__ = ["check_classes", "digest", "fitted", "head_classes", "initialize", "load", "read", "save", "shapes", "take_size"]

HEADS = r"(^|\.)(fc|classifier(\.\d+)?|head|head\.fc|last_linear|linear)\.weight$"  # names of the last layer

log = logging.getLogger("kdx")


def save(model: nn.Module, card: dict[str, Any], path: Path) -> None:
    """Write the weights to `path` (safetensors) and `card` to the same path with suffix .json."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def load(model: nn.Module, path: Path, key: str | None = None, key_option: str | None = None) -> None:
    """Load all weights of `model` from `path`, wherever they are in the file, and log where they were and what was changed.

    The first layer is adapted to the network's channels and position embeddings to its resolution, as timm does.

    Args:
        model: The network.
        path: A weight file, as in `weight_files.read`.
        key: Where the weights are, if several networks in the file fit: part of the containers' keys and the prefix, at dots.
        key_option: Name of the option that sets `key`, for the error message.

    Raises:
        ValueError: For missing, unknown, ambiguous or non-finite weights and for other shapes. Nothing is loaded then.
    """
    _put(model, fitted(model, path, key, key_option), path)


def initialize(model: nn.Module, path: Path, new_head: bool = False) -> list[str]:
    """Load the weights of `model` as `load`, except a last layer that is missing in the file or has other classes.

    With `new_head`, the last layer is not loaded at all. Returns the names of the weights that were not loaded. Raises
    ValueError for any other mismatch, as `load`.
    """
    fit = fitted(model, path, new_head=True)
    if new_head:
        expected, head = model.state_dict(), names_of_head(model)
        fit = replace(fit, state={**fit.state, **{name: expected[name] for name in head}}, fresh=tuple(head))
    _put(model, fit, path)
    return list(fit.fresh)


def fitted(model: nn.Module, path: Path, key: str | None = None, key_option: str | None = None, new_head: bool = False) -> Fit:
    """Return the weights for `model` in a file, as `load` or, with `new_head`, `initialize` would load them; raise as they do.

    The network may be on the meta device, so a file can be checked before anything else is done.
    """
    try:
        fit = weight_search.find(model, weight_files.read(path), key, new_head)
    except weight_search.AmbiguousError as error:
        choice = (
            f"choose one, such as {key_option}={error.prefixes[0]}" if key_option else "save the wanted one to its own file"
        )
        raise ValueError(f"{path} {error}: {choice}") from None
    except weight_search.MissingKeyError as error:
        raise ValueError(f"{path} {error}") from None
    if fit.num_problems:
        raise ValueError(
            f"{path} does not fit the network: {fit.problems}. Set the architecture, classes and channels of the "
            "trained network"
        )
    bad = [name for name, tensor in fit.state.items() if not tensor.is_meta and not tensor.isfinite().all()]
    if bad:
        raise ValueError(
            f"{path} contains NaN or infinite weights: {fit.prefix}{bad[0]}"
            f"{f' and {len(bad) - 1} others' if len(bad) > 1 else ''}. Use a checkpoint from before the training diverged"
        )
    return fit


def take_size(model: nn.Module, path: Path) -> None:
    """Give a network the image size of the weights in a file from which it is to start, without loading them."""
    fit = fitted(model, path, new_head=True) if grids.takes_any_size(model) else None
    if fit is not None and fit.size is not None:
        grids.resize(model, fit.size)


def _put(model: nn.Module, fit: Fit, path: Path) -> None:
    if fit.size is not None:
        grids.resize(model, fit.size)
    model.load_state_dict(fit.state)
    where = [f"found under {weight_search.shown(fit.prefix)}"] if fit.prefix else []
    if said := [*where, *fit.notes, *fit.changes]:
        log.log(logging.WARNING if fit.changes else logging.INFO, "Weights of %s: %s", path, "; ".join(said))


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of the network in a weight file under the names of the plain network, on the CPU.

    Without the network, its last layer shows where it is; if there is none, the names are those in the file.

    Raises ValueError as `weight_files.read`.
    """
    tensors = weight_files.read(path)
    prefix, *_ = [*weight_search.preferred(_heads({name: list(tensor.shape) for name, tensor in tensors.items()})), ""]
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def head_classes(path: Path, key: str | None = None) -> int | None:
    """Return the number of classes of the network in the file, or None if it is ambiguous.

    Args:
        path: A weight file.
        key: Where the network is, if the file contains several, as in `load`.
    """
    heads = _heads(shapes(path))
    prefixes = weight_search.under(key, heads) if key is not None else list(heads)
    classes = {heads[prefix] for prefix in weight_search.preferred(prefixes)}
    return classes.pop() if len(classes) == 1 else None


def _heads(shapes: Mapping[str, list[int]]) -> dict[str, int]:
    """Return the number of classes of each network in a file by the prefix of its names."""
    found: dict[str, tuple[int, int]] = {}  # position of the layer within the head, and its classes
    for name, shape in shapes.items():
        if match := re.search(HEADS, name):
            prefix, position = name[: match.end(1)], int((match[3] or ".0")[1:])
            found[prefix] = max(found.get(prefix, (0, 0)), (position, shape[0]))
    # A layer of that name deeper within a network is not its last.
    return {prefix: found[prefix][1] for prefix in found if not any(prefix != p and prefix.startswith(p) for p in found)}


def check_classes(path: Path, num_classes: int, key: str | None = None) -> None:
    """Raise ValueError if the network in the file has another number of classes."""
    file_classes = head_classes(path, key)
    if file_classes not in (None, num_classes):
        raise ValueError(
            f"The network in {path} has {file_classes} classes, expected {num_classes} as in the data set: "
            "use weights that were trained for these classes"
        )


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of all weights as 64 hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()
