"""Safe reader of CIFAR's batch files.

The files are pickles. torchvision checks only their md5, which can be forged, and unpickling can run any code. Here the
checksum is verified first, then a restricted unpickler reads the file, which can create only numpy arrays. So files without a
known checksum, of variants of CIFAR with other labels or fewer images, are safe to read, too.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _latin1(text: str, encoding: str) -> bytes:
    """Return what `_codecs.encode` does with the text of Python 3's bytes in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"forbidden encoding {encoding}")
    return text.encode("latin1")


_FUNCTIONS: dict[tuple[str, str], Any] = {
    ("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("multiarray", "scalar"): np.int64(0).__reduce__()[0],
    ("numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0],
}
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for (module, name), function in _FUNCTIONS.items()
    },
}


class _Reader(pickle.Unpickler):
    """Unpickler that allows only the functions that create numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"forbidden global {module}.{name}")
        return ALLOWED[module, name]


def intact(path: Path, md5: str | None) -> bool:
    """Return whether the file exists and has this checksum, or any without one."""
    return path.is_file() and md5 in (None, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest())


def read_batch(path: Path, md5: str | None, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images uint8 [N,3,32,32] and labels int64 [N] (the list `key`) of a batch file in the "python version".

    Raises ValueError if the checksum differs or the file contains other objects than arrays, lists and text.
    """
    remedy = "delete it and run with data.download=true"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {remedy}")
    if not intact(path, md5):
        raise ValueError(
            f"{path} is damaged or a variant of the data set (its md5 is not {md5}): {remedy}, or accept it with "
            "data.verify=false"
        )
    try:
        with path.open("rb") as file:
            loaded = _Reader(file, encoding="latin1").load()
        batch = {name.decode("latin1") if isinstance(name, bytes) else name: value for name, value in loaded.items()}
        if key not in batch or "data" not in batch:
            raise ValueError(f"expected the keys 'data' and '{key}', got {', '.join(map(repr, batch))}")
        images = np.asarray(batch["data"])
        if images.dtype != np.uint8:
            raise ValueError(f"its pixels are {images.dtype}, not uint8")
        return images.reshape(-1, 3, 32, 32), np.array(batch[key], np.int64)
    except Exception as error:
        raise ValueError(f"{path} is not a CIFAR batch ({error}): {remedy}") from error
