"""Load the trained student, and fold its calibration temperature into its last layer."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdx.export.finished import FinishedRun
from kdx.export.parity import ExportError
from kdx.networks import weights
from kdx.networks.features import classifier
from kdx.networks.network import Network


def load(run: FinishedRun) -> Network:
    """Return the selected student of the run, in eval mode on the CPU.

    Raises:
        ValueError: If the weights do not fit the architecture in student.json.
    """
    return build(run.card, run.weights)


def build(card: dict[str, Any], path: Path) -> Network:
    """Return the network that `card` (student.json) describes, with the weights at `path`, in eval mode."""
    args = dict(card["model_args"])
    classes, channels = args.pop("num_classes"), args.pop("in_chans")
    colors = {name: card["pretrained_cfg"][name] for name in ("mean", "std")}
    network = Network(card["architecture"], classes, channels, args=args, **colors)
    weights.load(network.model, path)
    return network.requires_grad_(False).eval()


def folded(network: Network, temperature: float) -> Network:
    """Return a copy whose last layer, and thereby its logits, are divided by `temperature`.

    Raises:
        ExportError: If the network has no single last linear or convolutional layer.
    """
    copied = copy.deepcopy(network)
    try:
        last = classifier(copied.model)
    except ValueError:
        last = nn.Identity()
    if not isinstance(last, (nn.Linear, nn.Conv2d)):
        raise ExportError(f"{network.architecture} has no single last layer to fold T into: give fold_temperature=false")
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)
    return copied


def registered_by(architecture: str) -> str | None:
    """Return the module of kdx that registers this architecture in timm; None if timm provides the architecture."""
    modules = ((name, module) for name, module in sys.modules.items() if name.startswith("kdx.networks."))
    return next((name for name, module in modules if architecture in getattr(module, "VARIANTS", ())), None)
