"""MobileNetV3 (Howard et al. 2019, arXiv:1905.02244) with GroupNorm in place of BatchNorm.

FunMatch (Beyer et al. 2021, arXiv:2106.05237) uses it as a student of another family, with 8 groups: GroupNorm does not use
batch statistics, so training and testing compute the same function. timm builds the network; the norms are replaced here.
"""

from __future__ import annotations

from typing import Any

import timm
from timm.layers.norm_act import BatchNormAct2d, GroupNormAct
from torch import nn

from kdx.networks.registration import register

VARIANTS = {
    "mobilenetv3_large_gn": {"architecture": "mobilenetv3_large_100"},
    "mobilenetv3_small_gn": {"architecture": "mobilenetv3_small_100"},
}


def group_normed(architecture: str, groups: int = 8, **kwargs: Any) -> nn.Module:
    """Return timm's `architecture` with each BatchNorm replaced by GroupNorm; activations and names stay the same.

    Raises ValueError if the channels of a layer are not divisible by `groups`.
    """
    model: nn.Module = timm.create_model(architecture, **kwargs)
    for path, old in list(model.named_modules()):
        if not isinstance(old, BatchNormAct2d):
            continue
        if old.num_features % groups:
            raise ValueError(f"{path} has {old.num_features} channels, not divisible by {groups} groups: use groups=8 or 4")
        norm = GroupNormAct(old.num_features, num_groups=groups, apply_act=False)
        norm.drop, norm.act = old.drop, old.act
        model.set_submodule(path, norm)
    return model


register(
    group_normed,
    VARIANTS,
    num_classes=1000,
    input_size=(3, 224, 224),
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    first_conv="conv_stem",
    classifier="classifier",
)
