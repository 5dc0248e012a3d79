"""Registration of kdx's architectures with timm.

`kdx.networks.names` reads the names without importing the module: they are the keys of its literal `VARIANTS`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, get_arch_pretrained_cfgs, register_model
from torch import nn


def register(
    build: Callable[..., nn.Module], variants: Mapping[str, Mapping[str, Any]], weights_of: str | None = None, **cfg: Any
) -> None:
    """Register each name in `variants` with timm, as `build` called with the variant's arguments.

    To be called at the end of the module that defines `build`. Arguments of `timm.create_model` override those in `variants`.
    `cfg` is timm's `pretrained_cfg` for all variants, without published weights. With `weights_of`, the argument that names
    an architecture of timm, a variant has the `pretrained_cfg` and the published weights of that one, by tag.
    """
    module = vars(sys.modules[build.__module__])
    cfgs: dict[str, Any] = {name: {"num_classes": 100, **cfg} for name in variants}
    if weights_of is not None:
        cfgs = {
            full.replace(arguments[weights_of], name): published
            for name, arguments in variants.items()
            for full, published in get_arch_pretrained_cfgs(arguments[weights_of]).items()
        }
    module["default_cfgs"] = generate_default_cfgs(cfgs)
    for name, arguments in variants.items():
        module[name] = register_model(_entry_point(build, name, arguments))


def _entry_point(build: Callable[..., nn.Module], name: str, arguments: Mapping[str, Any]) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(build, name, pretrained, **{**arguments, **kwargs})

    create.__name__ = create.__qualname__ = name
    create.__module__ = build.__module__  # timm looks there for `default_cfgs`
    return create
