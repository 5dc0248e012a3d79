"""BiT ResNets as FunMatch's Flax code computes them: the stem's max pooling pads with -inf, timm's `*_bit` pad with 0.

The original BiT of TensorFlow pads with 0; big_vision (models/bit_paper.py), which trained FunMatch's students and teachers,
uses `flax.linen.max_pool`. They differ at the border of the image only. Weights, names and pretrained tags are timm's.
"""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from kdx.networks.registration import register

VARIANTS = {
    "resnetv2_50x1_flax": {"architecture": "resnetv2_50x1_bit"},
    "resnetv2_152x2_flax": {"architecture": "resnetv2_152x2_bit"},
}


def padded_like_flax(architecture: str, **kwargs: Any) -> nn.Module:
    """Return timm's BiT `architecture` with the max pooling of Flax in its stem."""
    model: Any = timm.create_model(architecture, **kwargs)
    model.stem.pad, model.stem.pool = nn.Identity(), nn.MaxPool2d(3, stride=2, padding=1)
    whole: nn.Module = model
    return whole


register(padded_like_flax, VARIANTS, weights_of="architecture")
