"""A network from images in [0,1] to logits, including its normalization, which may differ between teacher and student."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import kdx.networks.bit_flax
import kdx.networks.cifar
import kdx.networks.mobilenetv3  # noqa: F401 - they register architectures with timm
from kdx.networks import downloads, grids, names, normalization, weights
from kdx.networks.fitting import last_layers
from kdx.networks.metadata import outputs_by_name
from kdx.ranges import Count, Finite, Positive, ShapeError, validated

log = logging.getLogger("kdx")

LOADING = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")

# What networks raise for images of an unsuitable size, such as a ViT, or one that is too deep for so few pixels.
UNSUITABLE = (AssertionError, RuntimeError, ValueError, IndexError, ZeroDivisionError)


@validated
class Network(nn.Module):
    """Maps images [B,C,R,R] in [0,1] to logits [B,K], with normalization and any timm architecture (`self.model`).

    Args:
        architecture: name of a timm architecture, with or without a pretrained tag.
        num_classes: number of logits K.
        in_channels: number of image channels C.
        mean, std: normalization: one value per channel, one for all, or three for RGB, which are averaged for images with
            another number of channels; by default those of the `pretrained` weights, else 0.5.
        pretrained: load timm's weights of that name.
        init: file of initial weights; if its last layer is missing or has other classes, that layer is initialized randomly.
        class_names: names of the K classes; if `init` names its classes too, its outputs are put in this order.
        args: further arguments of the architecture's constructor.

    Raises ValueError if weights do not exist or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: str,
        num_classes: Count,
        in_channels: Count = 3,
        mean: Sequence[Finite] | None = None,
        std: Sequence[Positive] | None = None,
        pretrained: bool = False,
        init: str | None = None,
        class_names: Sequence[str] | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.heads: tuple[nn.Module, ...] = ()  # of a network of which only these are trained
        names.check_architecture(architecture)
        architecture = names.located(architecture)
        _check_pretrained(architecture, pretrained)
        _check_args(args or {})
        if pretrained and init is not None:
            raise ValueError(f"init={init} and pretrained=true exclude each other: set pretrained=false or init=null")
        self.architecture, self.args = architecture, dict(args or {})
        self.num_classes, self.in_channels = num_classes, in_channels
        sizes: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
        self.model = (
            _published(architecture, sizes | self.args) if pretrained else timm.create_model(architecture, **sizes, **self.args)
        )
        self.built_for = grids.size_of(self.model)
        trained: Any = self.model.pretrained_cfg if pretrained else {"mean": (0.5,), "std": (0.5,)}
        for name, values in (("mean", mean), ("std", std)):
            per_channel = torch.tensor(_per_channel(name, trained[name] if values is None else values, in_channels))
            self.register_buffer(name, per_channel.view(1, -1, 1, 1), persistent=False)
        if init is not None:
            self._start_from(Path(init), class_names)

    def _start_from(self, path: Path, class_names: Sequence[str] | None) -> None:
        outputs = outputs_by_name(path, class_names)
        fresh = weights.initialize(self.model, path, new_head=outputs == [])
        note = f"; new last layer ({' and '.join(fresh)}) for {self.num_classes} classes" if fresh else ""
        if outputs is not None:
            note += "; its classes have other names" if not outputs else "" if fresh else "; classes matched by name"
        if outputs and not fresh:
            self.keep_classes(outputs)
        log.info("%s initialized from %s%s", self.architecture, path, note)

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - self.mean) / self.std)

    def keep_classes(self, outputs: Sequence[int]) -> None:
        """Reduce the last layer to these outputs, in this order. ValueError if it is not a linear or convolutional layer."""
        index = torch.as_tensor(list(outputs))
        for layer in last_layers(self.model):
            if not isinstance(layer, (nn.Linear, nn.Conv2d)):
                raise ValueError(f"The outputs of {self.architecture} cannot be selected: its last layer is no nn.Linear")
            for name, weight in list(layer.named_parameters(recurse=False)):
                setattr(layer, name, nn.Parameter(weight.detach()[index].clone(), requires_grad=weight.requires_grad))
            if isinstance(layer, nn.Linear):
                layer.out_features = len(index)
            else:
                layer.out_channels = len(index)
        self.num_classes = len(index)

    def freeze_all_but_head(self) -> None:
        """Leave only the last layer trainable; the rest stays in eval mode, so that statistics of BatchNorm do not move."""
        self.requires_grad_(False)
        self.heads = last_layers(self.model)
        for layer in self.heads:
            layer.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        super().train(mode and not self.heads)
        for layer in self.heads:
            layer.train(mode)
        return self

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return weights.digest(self.model)

    @property
    def colors(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, one value per channel."""
        return tuple(self.mean.flatten().tolist()), tuple(self.std.flatten().tolist())

    @property
    def card(self) -> dict[str, Any]:
        """Plain data to rebuild the timm model and its normalization: architecture, arguments, mean and std."""
        mean, std = map(list, self.colors)
        size = grids.size_of(self.model)  # of other weights, if they were loaded
        args = self.args if size is None or size == self.built_for else {**self.args, "img_size": list(size)}
        return {
            "architecture": self.architecture,
            "num_classes": self.num_classes,
            "model_args": {"num_classes": self.num_classes, "in_chans": self.in_channels, **args},
            "pretrained_cfg": {"num_classes": self.num_classes, "mean": mean, "std": std},
        }


def _published(architecture: str, args: Mapping[str, Any]) -> nn.Module:
    """Return timm's network with its published weights. ValueError, with the remedy, if they cannot be had or do not fit."""
    where = downloads.source(architecture)
    try:
        model: nn.Module = timm.create_model(architecture, pretrained=True, **where, **args)
    except (OSError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"Cannot load the pretrained weights of {architecture} ({first}): use pretrained=false or init=FILE"
        ) from error
    return model


def checked_logits(logits: Tensor, role: str, network: object, shape: tuple[int, int]) -> Tensor:
    """Return `logits` if they are floating point of `shape` (B, K); else raise ShapeError, which names role and class."""
    name = f"{role} network {type(network).__name__}"
    if not isinstance(logits, Tensor):
        raise ShapeError(f"{name} returned a {type(logits).__name__}; expected a tensor of logits: return the logits alone")
    if logits.shape != shape:
        raise ShapeError(
            f"{name} returned logits of shape {list(logits.shape)}; expected {list(shape)} (examples, classes): "
            "return one value per class, e.g. by a last layer with num_classes outputs and .flatten(1)"
        )
    if not logits.is_floating_point():
        raise ShapeError(f"{name} returned logits of type {logits.dtype}; expected floating point: return logits.float()")
    return logits


def _per_channel(name: str, values: Sequence[float], in_channels: int) -> tuple[float, ...]:
    if len(values) not in (1, 3, in_channels):
        raise ValueError(
            f"{name} has {len(values)} values but the images have {in_channels} channels: "
            "set one value per channel, or one for all"
        )
    return normalization.per_channel(values, in_channels)


def _check_args(args: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments with which timm reads weights itself: from any file, some versions by unpickling it."""
    for name in LOADING:
        if name in args:
            raise ValueError(f"args.{name} would load weights unchecked: use init=FILE, or pretrained=true for timm's weights")


def _check_pretrained(architecture: str, pretrained: bool) -> None:
    """Raise ValueError, with the available tags, if timm has no such weights."""
    if names.comes_from_elsewhere(architecture):
        return
    name, _, tag = architecture.partition(".")
    available = {full.partition(".")[2] for full in timm.models.get_arch_pretrained_cfgs(name)} - {""}
    if tag and tag not in available:
        raise ValueError(names.unknown_tag(name, tag, available))
    if pretrained and not timm.models.is_model_pretrained(architecture):
        raise ValueError(f"No pretrained weights for {architecture}: set pretrained=false, or init=FILE for your own weights")
