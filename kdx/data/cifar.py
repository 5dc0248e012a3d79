"""Safe reader of CIFAR's batch files.

The files are pickles. torchvision checks only their md5, which can be forged, and unpickling can run any code. Here the
checksum is verified first, then a restricted unpickler reads the file, which can create only numpy arrays.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Reader(pickle.Unpickler):
    """Unpickler that allows only the functions that create numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"forbidden global {module}.{name}")
        return ALLOWED[module, name]


def intact(path: Path, md5: str) -> bool:
    """Return whether the file exists and has this checksum."""
    return path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5


def read_batch(path: Path, md5: str, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images uint8 [N,3,32,32] and labels int64 [N] (the list `key`) of a batch file in the "python version".

    Raises ValueError if the checksum differs or the file contains other objects than arrays, lists and text.
    """
    remedy = "delete it and run with data.download=true"
    if not intact(path, md5):
        raise ValueError(f"{path} is missing or damaged (its md5 is not {md5}): {remedy}")
    try:
        with path.open("rb") as file:
            batch = _Reader(file, encoding="latin1").load()
        images = np.asarray(batch["data"])
        if images.dtype != np.uint8:
            raise ValueError(f"its pixels are {images.dtype}, not uint8")
        return images.reshape(-1, 3, 32, 32), np.array(batch[key], np.int64)
    except Exception as error:
        raise ValueError(f"{path} is not a CIFAR batch ({error}): {remedy}") from error
