"""The trained student as a module, and with its calibration temperature inside."""

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
    """The run's selected student, in eval mode on the CPU. ValueError if the weights do not fit its card."""
    return build(run.card, run.weights)


def build(card: dict[str, Any], path: Path) -> Network:
    """The network that `card` describes, with the weights at `path`, in eval mode."""
    args = dict(card["model_args"])
    classes, channels = args.pop("num_classes"), args.pop("in_chans")
    colors = {name: card["pretrained_cfg"][name] for name in ("mean", "std")}
    network = Network(card["architecture"], classes, channels, args=args, **colors)
    weights.load(network.model, path)
    return network.requires_grad_(False).eval()


def folded(network: Network, temperature: float) -> Network:
    """A copy whose last layer is divided by `temperature`, so that its logits are. ExportError where there is no such layer."""
    copied = copy.deepcopy(network)
    try:
        last = classifier(copied.model)
    except ValueError:
        last = nn.Identity()
    if not isinstance(last, (nn.Linear, nn.Conv2d)):
        raise ExportError(f"{network.architecture} has no single last layer that could be divided: give fold_temperature=false")
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)
    return copied


def registered_by(architecture: str) -> str | None:
    """The module of kdx whose import makes this architecture known to timm; None where timm knows it by itself."""
    modules = ((name, module) for name, module in sys.modules.items() if name.startswith("kdx.networks."))
    return next((name for name, module in modules if architecture in getattr(module, "VARIANTS", ())), None)
