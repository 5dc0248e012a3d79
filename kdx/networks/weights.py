"""Weight files: safetensors, PyTorch files read with `weights_only=True`, BiT archives. Loading never runs code from a file."""

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

HEADS = r"(^|\.)(fc|classifier|head|head\.fc|last_linear|linear)\.weight$"  # names of the last layer
PREFIXES = ("distiller.student.model.", "student.model.", "_orig_mod.", "module.", "model.")


def save(model: nn.Module, card: dict[str, Any], path: Path) -> None:
    """Write the weights to `path` (safetensors) and `card` to the same path with suffix .json."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file, on the CPU, under the names of the plain model.

    Reads .safetensors, a state dict saved by PyTorch, checkpoints of timm and Lightning, and BiT's .npz.

    Raises ValueError, with the remedy, if the file is missing, damaged or unsafe.
    """
    if not path.is_file():
        raise ValueError(f"No weight file {path}: set the path of a .safetensors, .pth or .ckpt file")
    try:
        content = _READERS.get(path.suffix, _load)(path)
    except pickle.UnpicklingError:
        raise ValueError(
            f"Unsafe weight file {path}: it contains Python objects, and loading it would run code from the file. "
            "Save only the state dict, preferably as .safetensors"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(_damaged(path, error)) from None
    for key in ("state_dict_ema", "state_dict", "model_ema", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()) or not content:
        raise ValueError(f"{path} does not contain a state dict: save `model.state_dict()`, preferably as .safetensors")
    return _plain(content)


def _damaged(path: Path, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{path} is damaged or not a weight file ({first}): copy it again"


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        if not file.read(4).startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or the pickle of before PyTorch 1.6
            raise ValueError("neither a PyTorch nor a safetensors file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the pickle protocol; errors are raised as exceptions
        return torch.load(path, map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[Path], Any]] = {".safetensors": safetensors.torch.load_file, ".npz": bit.read}


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if inside:
            return _plain(inside)
    return state


def shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a weight file, read from the header only if the format has one."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {name: list(tensor.shape) for name, tensor in read(path).items()}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise ValueError(_damaged(path, error)) from None


def head_classes(path: Path) -> int | None:
    """Return the number of classes of the network in the file, or None if it is ambiguous."""
    heads = {shape[0] for name, shape in shapes(path).items() if re.search(HEADS, name)}
    return heads.pop() if len(heads) == 1 else None


def check_classes(path: Path, num_classes: int) -> None:
    """Raise ValueError if the network in the file has another number of classes."""
    file_classes = head_classes(path)
    if file_classes not in (None, num_classes):
        raise ValueError(
            f"The network in {path} has {file_classes} classes, expected {num_classes} as in the data set: "
            "use weights that were trained for these classes"
        )


def load(model: nn.Module, path: Path) -> None:
    """Load all weights of `model` from `path`. Raises ValueError for missing or unknown weights and for other shapes."""
    _fill(model, read(path), path)


def initialize(model: nn.Module, path: Path) -> list[str]:
    """Load the weights of `model` from `path`, except a last layer that is missing in the file or has other classes.

    Returns the names of the weights that were not loaded. Raises ValueError for any other mismatch, as `load`.
    """
    state, current = read(path), model.state_dict()
    last = _last_layer(model)
    absent = all(name not in state for name in last)
    other_classes = all(name in state and state[name].shape[1:] == current[name].shape[1:] for name in last) and any(
        state[name].shape != current[name].shape for name in last
    )
    fresh = last if absent or other_classes else []
    _fill(model, {**state, **{name: current[name] for name in fresh}}, path)
    return fresh


def last_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return timm's classifier or classifiers."""
    heads: Any = model.get_classifier()  # type: ignore[operator]  # timm's
    return tuple(heads) if isinstance(heads, (tuple, list)) else (heads,)


def _last_layer(model: nn.Module) -> list[str]:
    """Return the names of the weights of the last layers."""
    inside = {id(weight) for layer in last_layers(model) for weight in layer.parameters()}
    return [name for name, weight in model.named_parameters() if id(weight) in inside]


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    mismatched = [
        f"{name} is {list(state[name].shape)} in the file and {list(expected[name].shape)} in the network"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    problems = mismatched[:3]
    problems += [f"{len(missing)} weights are not in the file, such as {missing[0]}"] if missing else []
    problems += [f"{len(unknown)} weights in the file are unknown to the network, such as {unknown[0]}"] if unknown else []
    if problems:
        raise ValueError(
            f"{path} does not fit the network: {'; '.join(problems)}. Set the architecture, classes and channels of the "
            "trained network"
        )
    model.load_state_dict(state)


def digest(model: nn.Module) -> str:
    """Return the SHA-256 of all weights as 64 hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()
