"""Base class of the CIFAR networks: a trunk of stages, average pooling, one linear layer, and the interface of timm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

CFG: dict[str, Any] = {
    "input_size": (3, 32, 32),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "mean": (0.5071, 0.4867, 0.4408),
    "std": (0.2675, 0.2565, 0.2761),
}


class CifarNetwork(nn.Module, ABC):
    """Images [B,C,R,R] -> logits [B,K]; any number of channels and classes, images from 4 px.

    `feature_info` lists, for each stage, the module that outputs its feature map, its channels and its reduction, the stride
    with respect to the image. A subclass builds its trunk and then calls `_finish`.
    """

    classifier_name: ClassVar[str] = "fc"
    feature_info: list[dict[str, Any]]
    num_features: int

    def __init__(self, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.num_classes, self.drop_rate = num_classes, drop_rate

    def _finish(self, num_features: int, stages: list[tuple[str, int, int]]) -> None:
        """Add the last layer and set `feature_info` from `stages`, (module, channels, reduction) from the input to the head."""
        self.num_features = num_features
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": module} for module, channels, reduction in stages
        ]
        self.reset_classifier(self.num_classes)

    def _init_classifier(self, layer: nn.Linear) -> None:
        """Initialize a new last layer; by default as PyTorch does. Subclasses override it as in their paper."""

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,F,R',R'], before pooling."""

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one for `num_classes` classes; for 0, by the identity."""
        self.num_classes = num_classes
        layer: nn.Module = nn.Identity()
        if num_classes:
            layer = nn.Linear(self.num_features, num_classes, device=next(self.parameters()).device)
            self._init_classifier(layer)
        self.add_module(self.classifier_name, layer)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits [B,K], or the pooled features [B,F] with `pre_logits`."""
        x = F.dropout(x.mean((2, 3)), self.drop_rate, self.training)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def init_convolutions(model: nn.Module) -> None:
    """Initialize convolutions with Kaiming normal over fan-out, std sqrt(2 / (channels out x kernel area)); biases with 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_small(layer: nn.Linear) -> None:
    """Initialize the last layer of VGG and MobileNetV2: normal weights with std 0.01, biases 0."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
