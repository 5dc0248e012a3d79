"""The number of channels of a run: that of the images, except that gray images are read as RGB for weights of RGB images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from kdx.config.schema import Node, RunConfig
from kdx.data.source import Source
from kdx.networks import weights

log = logging.getLogger("kdx")


def takes_channels(config: RunConfig) -> bool:
    """Return whether the number of channels of the run's source is to be inferred."""
    return config.data.source.get("channels", 0) is None


def with_channels(config: RunConfig, source: Source) -> RunConfig:
    """Return the config with the number of channels, inferred by `source`, so that the run can be read without its data.

    Gray images get three channels if a network of the run starts from weights for RGB images.
    """
    channels: Literal[1, 3] = 1 if source.channels == 1 else 3
    for key, node, file in _starts(config) if channels == 1 else ():
        if node.get("pretrained") if file is None else _for_rgb(Path(file)):
            log.info("The images are gray, and are read as RGB for the weights of %s; data.channels=1 reads them as gray", key)
            channels = 3
            break
    return replace(config, data=replace(config.data, channels=channels, source={**config.data.source, "channels": channels}))


def _starts(config: RunConfig) -> Iterator[tuple[str, Node, str | None]]:
    """Yield the key and the node of each network of a run, and the file of its weights, if any."""
    yield "student", config.student, config.student.get("init")
    for path, member in config.members.items():
        yield path, member.architecture, member.checkpoint or member.architecture.get("init")


def _for_rgb(file: Path) -> bool:
    """Return whether a convolution in a file of weights has three input channels, as only the first one has."""
    try:
        return any(tensor.ndim == 4 and tensor.shape[1] == 3 for tensor in weights.read(file).values())
    except ValueError:  # reported when the weights are loaded
        return False
