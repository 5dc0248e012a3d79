"""How images become a network's input, in the words of timm's `pretrained_cfg`, which other programs read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# The settings of timm's transforms that correspond to kdx's eval crops and filters.
CROPS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "kdx.views.crops.Resize": lambda node: {"crop_pct": 1.0, "crop_mode": "squash"},
    "kdx.views.crops.Center": lambda node: {"crop_pct": node.get("fraction", 0.875), "crop_mode": "center"},
}
FILTERS = {  # the nearest of timm's names; the first of two that share a name is the inverse
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "area": "box",
    "bilinear_aliased": "bilinear",
    "bicubic_aliased": "bicubic",
}


def preprocessing(crop: Mapping[str, Any], interpolation: str, channels: int, side: int) -> dict[str, Any]:
    """Return `input_size`, `interpolation`, `crop_pct` and `crop_mode`; without the last two if timm has no such crop.

    Args:
        crop: The node `data.eval_crop` of a config.
        interpolation: kdx's name of the filter on val and test.
        channels: Channels of the images.
        side: Resolution in px.
    """
    words = CROPS.get(str(crop.get("_target_")), lambda node: {})(crop)
    return {"input_size": [channels, side, side], "interpolation": FILTERS[interpolation], **words}


def crop_of(pretrained_cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the node `data.eval_crop` of timm's words; None if they name no crop, or one that kdx does not have."""
    mode, share = pretrained_cfg.get("crop_mode"), pretrained_cfg.get("crop_pct")
    if mode == "squash" and share == 1.0:
        return {"_target_": "kdx.views.crops.Resize"}
    if mode == "center" and isinstance(share, (int, float)):
        return {"_target_": "kdx.views.crops.Center", "fraction": share}
    return None


def interpolation_of(pretrained_cfg: Mapping[str, Any]) -> str | None:
    """Return kdx's name of the filter in timm's words; None if they name no filter, or one that kdx does not have."""
    return next((name for name, word in FILTERS.items() if word == pretrained_cfg.get("interpolation")), None)
