"""Features by module path: what a network computes on the way, caught without editing it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

POOLED = "pooled"
_STAGE = re.compile(r"stage(-?\d+)$")


class FeatureTaps:
    """Catches the features at `paths` during each forward of `model`, a timm model.

    A path is "pooled" (what the last layer gets, [B,F]), "stage1", "stage2" ... or "stage-1" (the output of a stage, counted
    from the input or from the end), or any module's name. ValueError lists the paths that exist. "pooled" is what the last
    layer gets, after dropout if there is any; an activation that works in place changes what the module before it gave.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")) == "NHWC"  # as Swin has it
        self.caught: dict[str, Tensor] = {}
        for path in self.paths:
            if path == POOLED:
                classifier(model).register_forward_pre_hook(self._keep_input(path))
            else:
                _module(model, path).register_forward_hook(self._keep_output(path))

    def take(self) -> dict[str, Tensor]:
        """What the last forward gave, by path; forgotten here, so that no activation outlives its step."""
        caught, self.caught = self.caught, {}
        return caught

    def _keep_input(self, path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.caught[path] = inputs[0].flatten(1)  # a last layer that is a 1x1 convolution gets [B,F,1,1]

        return hook

    def _keep_output(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise ValueError(f"the module '{path}' gives no single tensor: name another as a feature")
            self.caught[path] = output.permute(0, 3, 1, 2) if self.channels_last and output.ndim == 4 else output

        return hook


def stages(model: nn.Module) -> list[str]:
    """Names of the modules that end a stage, from the input to the head; as timm's `feature_info` has them."""
    info: Any = getattr(model, "feature_info", None)
    entries = getattr(info, "info", info) or []
    return [entry["module"] for entry in entries]


def classifier(model: nn.Module) -> nn.Module:
    """The last layer, [B,F] or [B,F,1,1] -> logits."""
    found: Any = model.get_classifier()  # type: ignore[operator]  # timm's
    if not isinstance(found, nn.Module):
        raise ValueError("the network has no single last layer: name a module instead of 'pooled'")
    return found


def logits_of(model: nn.Module, pooled: Tensor) -> Tensor:
    """The last layer's logits [B,K] for pooled features [B,F]."""
    last = classifier(model)
    return last(pooled[..., None, None] if isinstance(last, nn.Conv2d) else pooled).flatten(1)


def shapes(network: nn.Module | None, taps: FeatureTaps | None, images: Tensor) -> dict[str, torch.Size]:
    """Shapes of the features without the batch, from one dry run on `images` in eval mode; none where nothing is tapped."""
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
    known = dict(model.named_modules())
    ends = stages(model)
    stage = _STAGE.match(path)
    name = path
    if stage is not None and path not in known:
        number = int(stage[1])
        if number == 0 or abs(number) > len(ends):
            known_stages = (
                f"its stages are stage1 to stage{len(ends)}" if ends else "it names no stages, so give a module's name"
            )
            raise ValueError(f"the network has no '{path}': {known_stages}")
        name = ends[number - 1 if number > 0 else number]
    if not name or name not in known:
        close = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
        hint = f" Close: {', '.join(close)}." if close else ""
        top = [child for child, _ in model.named_children()]
        raise ValueError(
            f"the network has no module '{path}' to take features from.{hint} There are: pooled, "
            f"{''.join(f'stage{i + 1}, ' for i in range(len(ends)))}{', '.join(top)}, and the modules inside them"
        )
    return known[name]
