"""Arguments and names that differ between Hydra 1.3 and 1.4; `.ci/run` tests the release candidate of 1.4."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import hydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kdx.config.plugins import targets


def of_main() -> dict[str, Any]:
    """Return keyword arguments for `hydra.main`.

    Hydra 1.3 behaves like 1.1 unless `version_base` selects a newer version. 1.4 deprecates that argument and requires a list
    of the classes that Hydra's own config may name.
    """
    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else of_context()


def of_context() -> dict[str, list[str]]:
    """Return the same for `HydraContext`, with which a callback launches jobs."""
    if hydra.__version__.startswith("1.3."):
        return {}
    return {"execution_whitelist": ["kdx.cli.sweep.Sweep", "kdx.run.masking.MaskingFormatter"]}


def of_instantiate(node: Any) -> dict[str, list[str]]:
    """Return keyword arguments that allow `hydra.utils.instantiate` to build `node`, a checked config.

    Hydra 1.4 builds only the targets that its caller lists. Interpolations and arguments cannot add targets.
    """
    if "_execution_whitelist_" not in inspect.signature(instantiate).parameters:
        return {}
    plain = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    return {"_execution_whitelist_": sorted({str(target["_target_"]) for _, target in targets(plain)})}


def register_resolver(name: str, function: Callable[..., str]) -> None:
    """Make a resolver known to OmegaConf, which renames the function for it in 2.4, the version of Hydra 1.4."""
    is_old = hydra.__version__.startswith("1.3.")
    register: Any = OmegaConf.register_new_resolver if is_old else OmegaConf.register_resolver
    register(name, function, replace=True, use_cache=True)
