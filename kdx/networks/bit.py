"""BiT's official weights: NumPy archives of the Big Transfer repository, among them FunMatch's teachers and students.

`gs://bit_models/*.npz` and `gs://bit_models/distill/*.npz` fit timm's `resnetv2_*_bit`. Arrays are read without pickle.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_CONVOLUTION = "standardized_conv2d/kernel"
_NORMS = {"gamma": "weight", "beta": "bias"}
_UNIT = re.compile(r"block(\d+)/unit(\d+)/([abc])/(proj/)?(.+)$")


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an archive under timm's names; kernels [H,W,in,out] become [out,in,H,W].

    Raises ValueError if the file is not an official BiT archive.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if not archive.files or not all(name.startswith("resnet/") for name in archive.files):
            raise ValueError("not an official BiT archive")
        return {_name(name.removeprefix("resnet/")): _tensor(archive[name]) for name in archive.files}


def _tensor(array: np.ndarray) -> Tensor:
    turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(turned))


def _name(name: str) -> str:
    """Return timm's name of an array, or the original name if timm has none, so that the load error shows it."""
    if unit := _UNIT.match(name):
        block, number, part, projection, rest = unit.groups()
        inside = f"stages.{int(block) - 1}.blocks.{int(number) - 1}"
        layer = "abc".index(part) + 1
        if rest == _CONVOLUTION:
            return f"{inside}.downsample.conv.weight" if projection else f"{inside}.conv{layer}.weight"
        return f"{inside}.norm{layer}.{_NORMS.get(rest.removeprefix('group_norm/'), rest)}"
    outside = {
        f"root_block/{_CONVOLUTION}": "stem.conv.weight",
        "group_norm/gamma": "norm.weight",
        "group_norm/beta": "norm.bias",
        "head/conv2d/kernel": "head.fc.weight",
        "head/conv2d/bias": "head.fc.bias",
    }
    return outside.get(name, name)
