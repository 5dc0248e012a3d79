"""Read weight files: safetensors, PyTorch files with `weights_only=True`, BiT archives. Reading never runs code from a file."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdx.networks import bit

# What trainers save beside the weights. Building these runs no code from the file; NumPy 1 and 2 write different module names.
_NUMPY_FUNCTIONS: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]
_METADATA: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
    *((make, f"numpy.{core}.multiarray.{make.__name__}") for make in _NUMPY_FUNCTIONS for core in ("core", "_core")),
]

_ALONE = (
    "where the file was made, save the weights alone, as .safetensors or with torch.save(model.state_dict(), 'weights.pth'), "
    "and use that file"
)


def read(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a weight file, on the CPU, by their name in the file.

    The name of a tensor in nested containers is the containers' keys and its own, joined by dots: a checkpoint
    `{"state_dict": {"net.fc.bias": ...}}` gives `state_dict.net.fc.bias`.

    Raises ValueError, with the remedy, if the file is missing, damaged or contains code.
    """
    content = _content(path)
    tensors = {} if isinstance(content, Tensor) else dict(_flat(content))
    if not tensors:
        raise ValueError(f"{path} does not contain a state dict: save `model.state_dict()`, preferably as .safetensors")
    return tensors


def metadata(path: Path) -> Any:
    """Return what a PyTorch file contains: the weights and what the trainer keeps with them; {} for other formats.

    Raises ValueError as `read`.
    """
    return {} if path.suffix in _READERS else _content(path)


def _content(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"No weight file {path}: set the path of a .safetensors, .pth or .ckpt file")
    try:
        return _READERS.get(path.suffix, _load)(path)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"Python objects or code ({found[1]})" if found else "Python objects or code"
        raise ValueError(
            f"Unsafe weight file {path}: it contains {what}, and loading it would run code from the file; {_ALONE}"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(_damaged(path, error)) from None


def shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a weight file by their name in the file, from the header if the format has one.

    Raises ValueError as `read`.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return {name: list(tensor.shape) for name, tensor in read(path).items()}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise ValueError(_damaged(path, error)) from None


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested mappings and sequences with their dotted names."""
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}{key}.")
    elif isinstance(content, (list, tuple)):
        for i, value in enumerate(content):
            yield from _flat(value, f"{prefix}{i}.")


def _damaged(path: Path, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "weights_only" in first:  # PyTorch's advice to switch off the protection
        first = type(error).__name__
    return f"{path} is damaged or not a weight file ({first}): copy it again"


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        magic = file.read(4)
    is_zip = magic == b"PK\x03\x04"
    if not is_zip and not magic.startswith(b"\x80"):  # the pickle of before PyTorch 1.6
        raise ValueError("neither a PyTorch nor a safetensors file")
    if is_zip and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise pickle.UnpicklingError("GLOBAL TorchScript")
    with warnings.catch_warnings(), torch.serialization.safe_globals(_METADATA):
        warnings.simplefilter("ignore")  # about the pickle protocol; errors are raised as exceptions
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


_READERS: dict[str, Callable[[Path], Any]] = {".safetensors": safetensors.torch.load_file, ".npz": bit.read}
