"""Fit a state dict to a network: names of other code, channels, resolution, counters and classes, as timm does."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from kdx.networks import grids
from kdx.networks.grids import Size
from kdx.run.quiet import quiet

COUNTERS = "num_batches_tracked"  # of BatchNorm: not used in evaluation, nor in training with a momentum
HARMLESS = (COUNTERS, "total_ops", "total_params")  # the others are left by thop, which counts operations
FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")  # timm's names, and kdx's


@dataclass(frozen=True)
class Fit:
    """The tensors under one prefix of a file as the state dict of a network, and what was done to them."""

    prefix: str
    state: Mapping[str, Tensor]
    mismatched: tuple[str, ...] = ()  # descriptions of weights of another shape or kind
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()  # names of the last layer, which is not taken from the file
    changes: tuple[str, ...] = ()  # the network's function may differ from that of the file
    notes: tuple[str, ...] = ()  # the function is the same
    size: Size | None = None  # px; the network takes this one before the state dict

    @property
    def num_problems(self) -> int:
        """Number of weights that do not fit."""
        return len(self.mismatched) + len(self.missing) + len(self.unknown)

    @property
    def problems(self) -> str:
        """What does not fit, in words; empty if the state dict fits."""
        parts = list(self.mismatched[:3])
        parts += [f"{len(self.missing)} weights are not in the file, such as {self.missing[0]}"] if self.missing else []
        parts += (
            [f"{len(self.unknown)} weights in the file are unknown to the network, such as {self.unknown[0]}"]
            if self.unknown
            else []
        )
        return "; ".join(parts)

    @property
    def rank(self) -> tuple[bool, bool]:
        """Order of preference; the lowest is best."""
        return bool(self.fresh), bool(self.changes)


def fit(model: nn.Module, prefix: str, state: dict[str, Tensor], new_head: bool) -> Fit:
    """Return the state dict fitted to the network, which takes the image size of the weights if it can."""
    size = grids.size_of_weights(model, state)
    if size is None:
        return _fit(model, prefix, state, new_head)
    with grids.at_size(model, size):
        found = _fit(model, prefix, state, new_head)
    return replace(found, size=size, notes=(*found.notes, f"position embeddings of {size[0]}x{size[1]} px"))


def _fit(model: nn.Module, prefix: str, state: dict[str, Tensor], new_head: bool) -> Fit:
    """Return the state dict fitted as it is, or after the architecture's own conversion if that fits better."""
    plain = as_is(model, prefix, state, new_head)
    conversion = _conversion(model)
    if not plain.num_problems or conversion is None:
        return plain
    try:
        with quiet("timm", level=logging.WARNING):  # what was converted is reported once, with the name of the file
            converted = conversion(dict(state))
        assert all(isinstance(tensor, Tensor) for tensor in converted.values())
    except Exception:  # written for other files; the problems of the plain one are reported
        return plain
    best = as_is(model, prefix, converted, new_head)
    if best.num_problems >= plain.num_problems:
        return plain
    before = {name: list(tensor.shape) for name, tensor in state.items()}
    resized = [
        f"{name} resized from {before[name]} to {list(tensor.shape)}"
        for name, tensor in converted.items()
        if before.get(name, list(tensor.shape)) != list(tensor.shape)
    ]
    renamed = () if converted.keys() <= state.keys() else ("names converted to those of the architecture",)
    return replace(best, changes=(*resized, *best.changes), notes=(*renamed, *best.notes))


def _conversion(model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Any]] | None:
    """Return the function by which the architecture's module in timm or kdx converts the state dicts of other code, if any."""
    architecture = getattr(model, "pretrained_cfg", {}).get("architecture")
    if architecture is None or not timm.is_model(architecture):
        return None
    module = sys.modules[timm.models.model_entrypoint(architecture).__module__]
    function = next((getattr(module, name) for name in FILTERS if hasattr(module, name)), None)
    if function is None:
        return None
    takes_model = function.__code__.co_argcount > 1
    return (lambda state: function(state, model)) if takes_model else function


def as_is(model: nn.Module, prefix: str, state: dict[str, Tensor], new_head: bool) -> Fit:
    """Return the state dict with its counters, channels and last layer fitted to the network."""
    expected = model.state_dict()
    skipped = [name for name in state if name not in expected and name.endswith(HARMLESS)]
    absent = [name for name in expected if name.endswith(COUNTERS) and not _alike(state.get(name), expected[name])]
    state = {name: tensor for name, tensor in state.items() if name not in skipped} | {name: expected[name] for name in absent}
    notes = [f"{len(skipped)} counters such as {skipped[0]} skipped"] if skipped else []
    notes += [f"{len(absent)} num_batches_tracked not in the file, or of another type"] if absent else []
    adapted, changes = _with_channels(model, state, expected)
    fresh = _fresh(model, adapted, expected) if new_head else []
    unadapted, state = state, {**adapted, **{name: expected[name] for name in fresh}}
    mismatched = tuple(_mismatched(state, expected))
    missing = tuple(name for name in expected if name not in state)
    unknown = tuple(name for name in state if name not in expected)
    if mismatched or missing or unknown:
        mismatched = tuple(_mismatched(unadapted, expected))  # the shapes in the file
    else:
        state = {name: state[name].to(tensor.dtype) for name, tensor in expected.items()}
    return Fit(prefix, state, mismatched, missing, unknown, tuple(fresh), tuple(changes), tuple(notes))


def _alike(tensor: Tensor | None, expected: Tensor) -> bool:
    """Return whether a tensor has the expected shape and is an integer if that is expected."""
    return tensor is not None and tensor.shape == expected.shape and not tensor.is_floating_point()


def _with_channels(
    model: nn.Module, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict with its first layers adapted to the network's channels, and what was changed."""
    adapted, changes = dict(state), []
    for name in _first_layers(model):
        if name in state and name in expected and (weight := _adapted(state[name], expected[name].shape)) is not None:
            before, after = state[name].shape[1], weight.shape[1]
            changes.append(f"{name} adapted from {before} to {after} channels (in_chans={after})")
            adapted[name] = weight
    return adapted, changes


def _first_layers(model: nn.Module) -> list[str]:
    first = getattr(model, "pretrained_cfg", {}).get("first_conv") or []
    return [f"{name}.weight" for name in ([first] if isinstance(first, str) else first)]


def _adapted(weight: Tensor, shape: torch.Size) -> Tensor | None:
    """Return the weight [out,in,H,W] for other image channels, as timm adapts it; None if more or nothing differs."""
    if weight.ndim != 4 or weight.shape == shape or weight[:, :1].shape != (shape[0], 1, *shape[2:]):
        return None
    if weight.shape[1] == 1:
        return weight.repeat(1, shape[1], 1, 1) / shape[1]  # gray: the mean of the channels
    if weight.shape[1] % 3:
        return None  # not the first layer of a network for color images
    phases = weight.shape[1] // 3  # of stems that move pixels to channels
    try:
        adapted: Tensor = adapt_input_conv(shape[1] // phases, weight)
    except (NotImplementedError, ValueError):
        return None
    return adapted if adapted.shape == shape else None


def last_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return timm's classifier or classifiers."""
    heads: Any = model.get_classifier()  # type: ignore[operator]  # timm's
    return tuple(heads) if isinstance(heads, (tuple, list)) else (heads,)


def names_of_head(model: nn.Module) -> list[str]:
    """Return the names of the weights of the last layer."""
    inside = {id(weight) for layer in last_layers(model) for weight in layer.parameters()}
    return [name for name, weight in model.named_parameters() if id(weight) in inside]


def _fresh(model: nn.Module, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the last layer if it is not in the state dict, or has other classes there."""
    last = names_of_head(model)
    absent = all(name not in state for name in last)
    other_classes = all(name in state and state[name].shape[1:] == expected[name].shape[1:] for name in last) and any(
        state[name].shape != expected[name].shape for name in last
    )
    return last if absent or other_classes else []


def _mismatched(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    found = []
    for name in (name for name in expected if name in state):
        own, other = expected[name], state[name]
        if own.shape != other.shape:
            found.append(f"{name} is {list(other.shape)} in the file and {list(own.shape)} in the network")
        elif own.is_floating_point() != other.is_floating_point():
            found.append(f"{name} is {other.dtype} in the file and {own.dtype} in the network")
    return found
