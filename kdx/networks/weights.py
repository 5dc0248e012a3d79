"""Weights on disk: safetensors, PyTorch's files read with `weights_only=True`, BiT's archives. No file gets to run code."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdx.networks import bit

HEADS = r"(^|\.)(fc|classifier|head|head\.fc|last_linear|linear)\.weight$"  # what architectures call their last layer
PREFIXES = ("distiller.student.model.", "student.model.", "_orig_mod.", "module.", "model.")


def save(model: nn.Module, card: dict[str, Any], path: Path) -> None:
    """Write `path` (safetensors, with plain names) and, beside it, `card` as JSON."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def read(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of weights, on the CPU, under the names of the plain model.

    Takes .safetensors, a state dict saved by PyTorch, timm's or Lightning's checkpoint, BiT's .npz. ValueError says what is
    wrong with the file and what to do.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give the path of a .safetensors, .pth or .ckpt file")
    try:
        content = _READERS.get(path.suffix, _load)(path)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds Python objects, and loading it would run code from the file: refused. "
            "Save the state dict alone, best as .safetensors"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(_damaged(path, error)) from None
    for key in ("state_dict_ema", "state_dict", "model_ema", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()) or not content:
        raise ValueError(f"{path} holds no state dict: save `model.state_dict()`, best as .safetensors")
    return _plain(content)


def _damaged(path: Path, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{path} is damaged or not a file of weights ({first}): copy it again"


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        if not file.read(4).startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or the pickle of before PyTorch 1.6
            raise ValueError("neither a PyTorch nor a safetensors file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the pickle's protocol; what matters is said by an exception
        return torch.load(path, map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[Path], Any]] = {".safetensors": safetensors.torch.load_file, ".npz": bit.read}


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if inside:
            return _plain(inside)
    return state


def shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of the tensors in a file of weights, read from the header alone where the format has one."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {name: list(tensor.shape) for name, tensor in read(path).items()}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise ValueError(_damaged(path, error)) from None


def head_classes(path: Path) -> int | None:
    """How many classes the network in the file tells apart; None where that is not clear."""
    heads = {shape[0] for name, shape in shapes(path).items() if re.search(HEADS, name)}
    return heads.pop() if len(heads) == 1 else None


def check_classes(path: Path, num_classes: int) -> None:
    """Raise ValueError if the network in the file clearly tells apart another number of classes."""
    found = head_classes(path)
    if found not in (None, num_classes):
        raise ValueError(
            f"{path} tells {found} classes apart and the data set has {num_classes}: "
            "give weights that were trained for these classes"
        )


def load(model: nn.Module, path: Path) -> None:
    """Load all weights of `model` from `path`; ValueError names what is missing, unknown or of another shape."""
    _fill(model, read(path), path)


def initialize(model: nn.Module, path: Path) -> list[str]:
    """Load the weights of `model` from `path`, but leave a last layer alone that the file lacks or has for other classes.

    Names of the weights that stayed as they were; empty if all were loaded. ValueError for any other misfit, as in `load`.
    """
    state, own = read(path), model.state_dict()
    last = _last_layer(model)
    absent = all(name not in state for name in last)
    other_classes = all(name in state and state[name].shape[1:] == own[name].shape[1:] for name in last) and any(
        state[name].shape != own[name].shape for name in last
    )
    fresh = last if absent or other_classes else []
    _fill(model, {**state, **{name: own[name] for name in fresh}}, path)
    return fresh


def _last_layer(model: nn.Module) -> list[str]:
    """Names of the weights of timm's classifier, or classifiers."""
    found: Any = model.get_classifier()  # type: ignore[operator]  # timm's
    layers = found if isinstance(found, (tuple, list)) else [found]
    inside = {id(weight) for layer in layers for weight in layer.parameters()}
    return [name for name, weight in model.named_parameters() if id(weight) in inside]


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    wrong = [
        f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in the network"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    problems = wrong[:3]
    problems += [f"{len(missing)} weights are not in the file, such as {missing[0]}"] if missing else []
    problems += [f"{len(unknown)} weights in the file are unknown to the network, such as {unknown[0]}"] if unknown else []
    if problems:
        raise ValueError(
            f"{path} does not fit the network: {'; '.join(problems)}. Name the architecture, the classes and the channels "
            "that the file was trained with"
        )
    model.load_state_dict(state)


def digest(model: nn.Module) -> str:
    """SHA-256 of all weights, as 64 hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()
