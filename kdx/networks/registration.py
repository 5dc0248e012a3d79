"""Registration of kdx's architectures with timm.

`kdx.networks.names` reads the names without importing the module: they are the keys of its literal `VARIANTS`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


def register(build: Callable[..., nn.Module], variants: Mapping[str, Mapping[str, Any]], **cfg: Any) -> None:
    """Register each name in `variants` with timm, as `build` called with the variant's arguments.

    To be called at the end of the module that defines `build`. Arguments of `timm.create_model` override those in `variants`.
    `cfg` is timm's `pretrained_cfg` for all variants; they have no published weights.
    """
    module = vars(sys.modules[build.__module__])
    module["default_cfgs"] = generate_default_cfgs({name: {"num_classes": 100, **cfg} for name in variants})
    for name, arguments in variants.items():
        module[name] = register_model(_entry_point(build, name, arguments))


def _entry_point(build: Callable[..., nn.Module], name: str, arguments: Mapping[str, Any]) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(build, name, pretrained, **{**arguments, **kwargs})

    create.__name__ = create.__qualname__ = name
    create.__module__ = build.__module__  # timm looks there for `default_cfgs`
    return create
