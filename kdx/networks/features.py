"""Intermediate features by module path, captured with forward hooks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

POOLED, STAGES = "pooled", "stages"
MOST_STAGES = 4  # of "stages"
_STAGE = re.compile(r"stage(-?\d+)$")


class FeatureTaps:
    """Captures the features at `paths` during each forward of `model`, a timm model.

    A path is "pooled" (the input of the last layer [B,F], after dropout if any), "stage1", "stage2" ... or "stage-1" (the
    output of a stage, counted from the input or from the end), "stages" (the last stages, up to four: "stage-4" to "stage-1"),
    or the name of any module. An in-place activation changes the captured output of the module before it.

    Raises ValueError, with the available paths, if a path does not exist.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)
        last = [f"stage{-number}" for number in range(min(len(stages(model)), MOST_STAGES), 0, -1)]
        if STAGES in self.paths:
            self.paths = tuple(dict.fromkeys([path for path in self.paths if path != STAGES] + last))
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")) == "NHWC"  # as Swin has it
        self.features: dict[str, Tensor] = {}
        for path in self.paths:
            if path == POOLED:
                classifier(model).register_forward_pre_hook(self._keep_input(path))
            else:
                _module(model, path).register_forward_hook(self._keep_output(path))

    def take(self) -> dict[str, Tensor]:
        """Return the features of the last forward by path, and release them so that no activation outlives its step."""
        features, self.features = self.features, {}
        return features

    def _keep_input(self, path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.features[path] = inputs[0].flatten(1)  # a last layer that is a 1x1 convolution gets [B,F,1,1]

        return hook

    def _keep_output(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise ValueError(f"The output of module '{path}' is not a single tensor: select another feature")
            self.features[path] = output.permute(0, 3, 1, 2) if self.channels_last and output.ndim == 4 else output

        return hook


def stages(model: nn.Module) -> list[str]:
    """Return the names of the modules at the end of each stage, from input to head, from timm's `feature_info`."""
    info: Any = getattr(model, "feature_info", None)
    entries = getattr(info, "info", info) or []
    return [entry["module"] for entry in entries]


def classifier(model: nn.Module) -> nn.Module:
    """Return the last layer, [B,F] or [B,F,1,1] -> logits. Raises ValueError if there is none or more than one."""
    layer: Any = model.get_classifier()  # type: ignore[operator]  # timm's
    if not isinstance(layer, nn.Module):
        raise ValueError("The network does not have a single last layer: select a module name instead of 'pooled'")
    return layer


def logits_of(model: nn.Module, pooled: Tensor) -> Tensor:
    """Return the last layer's logits [B,K] for pooled features [B,F]."""
    last = classifier(model)
    return last(pooled[..., None, None] if isinstance(last, nn.Conv2d) else pooled).flatten(1)


def shapes(network: nn.Module | None, taps: FeatureTaps | None, images: Tensor) -> dict[str, torch.Size]:
    """Return the shapes of the captured features, without the batch, from one forward on `images` in eval mode."""
    if network is None or taps is None or not taps.paths:
        return {}
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            network(images)
    finally:
        for module, training in modes.items():
            module.training = training
    return {path: feature.shape[1:] for path, feature in taps.take().items()}


def _module(model: nn.Module, path: str) -> nn.Module:
    modules = dict(model.named_modules())
    ends = stages(model)
    stage = _STAGE.match(path)
    name = path
    if stage is not None and path not in modules:
        number = int(stage[1])
        if number == 0 or abs(number) > len(ends):
            available = f"use stage1 to stage{len(ends)}" if ends else "timm lists no stages for it; use a module name"
            raise ValueError(f"Unknown stage '{path}' of the network: {available}")
        name = ends[number - 1 if number > 0 else number]
    if not name or name not in modules:
        close = difflib.get_close_matches(path, modules, n=3, cutoff=0.5)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        top = [child for child, _ in model.named_children()]
        raise ValueError(
            f"Unknown module '{path}' for features.{hint} Available: pooled, "
            f"{''.join(f'stage{i + 1}, ' for i in range(len(ends)))}{', '.join(top)}, and their submodules"
        )
    return modules[name]
