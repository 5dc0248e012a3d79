"""BiT's official weights: NumPy archives of the Big Transfer repository and of big_vision, among them FunMatch's networks.

`gs://bit_models/*.npz` and `gs://bit_models/distill/*.npz` fit timm's `resnetv2_*_bit`, as do the checkpoints that big_vision
writes of its `bit_paper` model. Arrays are read without pickle.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

BIG_TRANSFER = "resnet/"
BIG_VISION = ("params/", "opt/target/", "")  # with optax state, with Flax's optimizer, the parameters alone

_UNIT = re.compile(r"block(\d+)/unit(\d+)/(.+)$")
# Within a unit: a is 1, b is 2, c is 3.
_BIG_TRANSFER_LAYER = re.compile(r"([abc])/(proj/)?(.+)$")
_BIG_VISION_LAYER = re.compile(r"(?:conv(?:([123])|_proj)/kernel|gn([123])/(scale|bias))$")
_NORMS = {"group_norm/gamma": "weight", "group_norm/beta": "bias", "scale": "weight", "bias": "bias"}
_OUTSIDE = {
    "root_block/standardized_conv2d/kernel": "stem.conv.weight",
    "group_norm/gamma": "norm.weight",
    "group_norm/beta": "norm.bias",
    "head/conv2d/kernel": "head.fc.weight",
    "head/conv2d/bias": "head.fc.bias",
    "root_block/conv_root/kernel": "stem.conv.weight",
    "norm-pre-head/scale": "norm.weight",
    "norm-pre-head/bias": "norm.bias",
    "head/kernel": "head.fc.weight",
    "head/bias": "head.fc.bias",
}


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an archive under timm's names; kernels [H,W,in,out] become [out,in,H,W].

    Raises ValueError if the file is not an official BiT archive.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        prefix = _prefix(archive.files)
        names = {_name(name.removeprefix(prefix)): name for name in archive.files if name.startswith(prefix)}
        return {name: _tensor(name, archive[key]) for name, key in names.items()}


def _prefix(files: list[str]) -> str:
    """Return the prefix of the parameters in an archive; the rest are the optimizer's."""
    if files and all(name.startswith(BIG_TRANSFER) for name in files):
        return BIG_TRANSFER
    for prefix in BIG_VISION:
        if f"{prefix}root_block/conv_root/kernel" in files:
            return prefix
    raise ValueError("not an official BiT archive")


def _tensor(name: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind == "V" and array.itemsize == 2:  # bfloat16, which NumPy does not know
        return _tensor(name, torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float().numpy())
    if name == "head.fc.weight" and array.ndim == 2:  # a dense layer in big_vision, a 1x1 convolution in timm
        array = array[None, None]
    if array.ndim == 4:
        array = array.reshape(-1) if "norm" in name else array.transpose(3, 2, 0, 1)  # norms are [1,1,1,C] in big_vision
    return torch.from_numpy(np.ascontiguousarray(array))


def _name(name: str) -> str:
    """Return timm's name of an array, or the original name if timm has none, so that the load error shows it."""
    name = re.sub(r"standardized_conv2d_\d+/", "standardized_conv2d/", name)  # some archives number the convolutions
    if not (unit := _UNIT.match(name)):
        return _OUTSIDE.get(name, name)
    block, number, rest = unit.groups()
    inside = f"stages.{int(block) - 1}.blocks.{int(number) - 1}"
    return f"{inside}.{_layer(rest)}"


def _layer(name: str) -> str:
    """Return timm's name of an array within a unit."""
    if layer := _BIG_TRANSFER_LAYER.match(name):
        part, projection, rest = layer.groups()
        number = "abc".index(part) + 1
        if rest == "standardized_conv2d/kernel":
            return "downsample.conv.weight" if projection else f"conv{number}.weight"
        return f"norm{number}.{_NORMS.get(rest, rest)}"
    if layer := _BIG_VISION_LAYER.match(name):
        convolution, norm, kind = layer.groups()
        if norm:
            return f"norm{norm}.{_NORMS[kind]}"
        return f"conv{convolution}.weight" if convolution else "downsample.conv.weight"
    return name.replace("/", ".")
