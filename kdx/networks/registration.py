"""How kdx's own architectures become names of timm.

`kdx.networks.names` reads the names without importing anything: they are the keys of a module's literal `VARIANTS`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


def register(build: Callable[..., nn.Module], variants: Mapping[str, Mapping[str, Any]], **cfg: Any) -> None:
    """Register each name in `variants` with timm, as `build` with these arguments. Nothing comes out.

    Called by the module that defines `build`, after both. What the caller of `timm.create_model` gives goes before what
    `variants` says. `cfg` is timm's `pretrained_cfg` for all of them; no weights are published here.
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
