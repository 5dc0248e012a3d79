"""Networks of a run from their config nodes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from kdx.config.errors import ConfigError
from kdx.config.schema import MemberConfig, Node, Precision, RunConfig
from kdx.config.signatures import signature
from kdx.data.source import Source
from kdx.experiment import build
from kdx.networks.network import Network
from kdx.networks.normalization import Normalization, candidates

log = logging.getLogger("kdx")

DTYPES: dict[Precision, torch.dtype] = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def normalizations(node: Node, source: Source, file: Path | None = None, key: str | None = None) -> list[Normalization]:
    """Return the normalizations that the network of a config node may expect, the one to use first; see `candidates`.

    Args:
        node: The network; its weights come from `file`, else from its `init`, else they are random.
        source: The data set.
        file: The file of its weights.
        key: Where they are in the file, if it contains several networks.
    """
    start = Path(node["init"]) if node.get("init") is not None else None
    return candidates(node.get("architecture"), source.channels, (source.mean, source.std), file or start, key)


def make_network(node: Node, path: str, source: Source, num_classes: int, expected: Normalization | None = None) -> Network:
    """Return the network of the config node at `path`, with the classes and channels of the data set.

    A mean and std in the node take precedence, then those of its pretrained weights, then what is `expected`, by default as
    in `normalizations`. A network that starts from a file gets the names of the classes, too. ConfigError if the network cannot
    be built with these arguments.
    """
    factory = build.make(node, path)
    unset = [] if node.get("pretrained") and "architecture" in node else [n for n in ("mean", "std") if node.get(n) is None]
    try:
        used = expected or normalizations(node, source)[0]
        data: dict[str, Any] = {name: getattr(used, name) for name in unset}
        known = signature(str(node["_target_"])) if node.get("init") is not None else None
        if known is not None and "class_names" in known.parameters:
            data["class_names"] = source.names
        network: Network = factory(num_classes=num_classes, in_channels=source.channels, **data)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if unset and (expected is not None or node.get("init") is not None):
        log.info("%s: images are normalized with %s", path, used)
    return network


def arithmetic(config: RunConfig, member: MemberConfig) -> dict[str, Any]:
    """Return how this member of the teacher computes, as arguments of `OnlineTeacher`."""
    precision = member.precision or ("bf16-mixed" if config.speed == "max" and not on_cpu(config) else None)
    return {
        "fold": config.speed != "exact",
        "channels_last": channels_last(config, precision),
        "dtype": None if precision is None else DTYPES[precision],
    }


def channels_last(config: RunConfig, precision: Precision | None = None) -> bool:
    """Whether convolutions are faster in the layout [B,H,W,C]: measured on CPUs; on GPUs in mixed precision, as cuDNN says."""
    return config.speed != "exact" and (on_cpu(config) or "16-mixed" in (precision or str(config.trainer.get("precision"))))


def on_cpu(config: RunConfig) -> bool:
    """Whether the run trains on the processor."""
    accelerator = config.trainer.get("accelerator")
    return accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())


def gpus_here(config: RunConfig) -> int:
    """Return the number of GPUs of this machine that train."""
    devices = config.trainer.get("devices", 1)
    if on_cpu(config):
        return 0
    if isinstance(devices, list):
        return len(devices)
    return int(devices) if str(devices).isdigit() else torch.accelerator.device_count()


def fused_optimizer(config: RunConfig) -> bool:
    """Whether torch's fused kernels may update the parameters; in float16 they forbid to clip gradients."""
    return config.speed != "exact" and str(config.trainer.get("precision")) not in ("16", "16-mixed")
