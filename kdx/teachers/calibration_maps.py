"""What a calibration does to logits: maps without gradients to learn, which a run keeps as plain data in teacher.json."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

OnDevice = Callable[[torch.device], tuple[Tensor, ...]]


class CalibrationMap(ABC):
    """Maps logits [...,K] of a network to calibrated logits [...,K]."""

    method: ClassVar[str]  # its name in teacher.json

    @abstractmethod
    def __call__(self, logits: Tensor) -> Tensor:
        """Return the calibrated logits [...,K]."""

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Plain data from which the constructor makes the same map."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What it does, for logs and cards."""

    @property
    def card(self) -> dict[str, Any]:
        """The map as plain data, see `of_card`."""
        return {"method": self.method, **self.arguments}


@dataclass(frozen=True)
class TemperatureMap(CalibrationMap):
    """Divides logits by a temperature; 1 is the identity."""

    temperature: float = 1.0
    method: ClassVar[str] = "temperature"

    def __call__(self, logits: Tensor) -> Tensor:
        return logits / self.temperature

    @property
    def arguments(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    @property
    def text(self) -> str:
        return f"calibration temperature {self.temperature:.4f}"


@dataclass(frozen=True)
class VectorMap(CalibrationMap):
    """Multiplies the logit of each class by a scale of its own and adds a bias, so that the likeliest class may change."""

    scale: tuple[float, ...]
    bias: tuple[float, ...]
    method: ClassVar[str] = "vector"

    @cached_property
    def _on(self) -> OnDevice:
        return _per_device(torch.tensor(self.scale), torch.tensor(self.bias))

    def __call__(self, logits: Tensor) -> Tensor:
        scale, bias = self._on(logits.device)
        return logits * scale.to(logits.dtype) + bias.to(logits.dtype)

    @property
    def arguments(self) -> dict[str, Any]:
        return {"scale": list(self.scale), "bias": list(self.bias)}

    @property
    def text(self) -> str:
        ends = f"{min(self.scale):.3g} to {max(self.scale):.3g}", f"{min(self.bias):.3g} to {max(self.bias):.3g}"
        return f"vector scaling, scales {ends[0]}, biases {ends[1]}"


@dataclass(frozen=True)
class TopClassMap(CalibrationMap):
    """Maps the confidence of the likeliest class; the other classes keep their proportions.

    Only the logit of the likeliest class changes. It stays above that of the second, so the prediction stays the same: a
    confidence is raised to it where the map asks for less.

    `knots` has the log odds of confidences before and after, each as a rising list, between which the map is linear and beyond
    which it is constant; two equal ones before are a step. `own` has the knots of the likeliest classes that have their own.
    """

    knots: tuple[tuple[float, ...], tuple[float, ...]]
    own: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]]
    how: str
    method: ClassVar[str] = "top_class"

    @cached_property
    def _on(self) -> OnDevice:
        """Knots before and after [1+own,Q], padded with their ends, and the row of each class up to the last with its own."""
        each = [self.knots, *self.own.values()]
        width = max(len(before) for before, _ in each)
        before = torch.tensor([[*x, *[torch.inf] * (width - len(x))] for x, _ in each])
        after = torch.tensor([[*y, *[y[-1]] * (width - len(y))] for _, y in each])
        row = torch.zeros(2 + max(self.own, default=0), dtype=torch.long)
        row[list(self.own)] = torch.arange(1, len(each))
        return _per_device(before, after, row)

    def __call__(self, logits: Tensor) -> Tensor:
        top, index = logits.max(-1, keepdim=True)
        others = logits.scatter(-1, index, -torch.inf)
        rest = others.logsumexp(-1, keepdim=True)
        mapped = rest + self.log_odds((top - rest)[..., 0].float(), index[..., 0])[..., None].to(logits.dtype)
        second = others.amax(-1, keepdim=True)
        above = torch.nextafter(second, torch.full_like(second, torch.inf))
        return logits.scatter(-1, index, torch.maximum(mapped, above))

    def log_odds(self, before: Tensor, index: Tensor) -> Tensor:
        """Return the log odds [...] of the calibrated confidence from those of the confidence, and the likeliest class."""
        x, y, row = self._on(before.device)
        row = row[index.clamp(max=len(row) - 1)]
        x, y = x[row], y[row]  # [...,Q]
        right = torch.searchsorted(x, before[..., None].contiguous(), right=True)
        left, right = (right - 1).clamp(min=0), right.clamp(max=x.shape[-1] - 1)
        (x0, x1), (y0, y1) = ([values.gather(-1, at)[..., 0] for at in (left, right)] for values in (x, y))
        share = ((before - x0) / (x1 - x0)).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
        return y0 + share * (y1 - y0)

    @property
    def arguments(self) -> dict[str, Any]:
        own = {str(label): [list(part) for part in knots] for label, knots in self.own.items()}
        return {"knots": [list(part) for part in self.knots], "own": own, "how": self.how}

    @property
    def text(self) -> str:
        count = f", {len(self.own)} classes by themselves" if self.own else ""
        return f"{self.how} of the likeliest class{count}"

    @classmethod
    def of_arguments(cls, knots: Sequence[Any], own: Mapping[str, Any], how: str) -> TopClassMap:
        """Return the map of `arguments`."""
        return cls(_knots(knots), {int(label): _knots(each) for label, each in own.items()}, str(how))


IDENTITY = TemperatureMap()


def of_card(card: Mapping[str, Any]) -> CalibrationMap:
    """Return the map of a member's card in teacher.json; older runs have a temperature only.

    Raises ValueError if it is not one that kdx writes.
    """
    if "calibration" not in card:
        return TemperatureMap(float(card["calibration_temperature"]))
    stated = dict(card["calibration"])
    method = stated.pop("method", None)
    try:
        if method == TemperatureMap.method:
            return TemperatureMap(float(stated["temperature"]))
        if method == VectorMap.method:
            return VectorMap(tuple(map(float, stated["scale"])), tuple(map(float, stated["bias"])))
        if method == TopClassMap.method:
            return TopClassMap.of_arguments(**stated)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"The calibration {method!r} in teacher.json is incomplete ({error!r}): train the run again") from None
    raise ValueError(f"Unknown calibration {method!r} in teacher.json: it may be of a newer version of kdx")


def _knots(knots: Sequence[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    before, after = (tuple(map(float, part)) for part in knots)
    return before, after


def _per_device(*tensors: Tensor) -> OnDevice:
    """Return a function from device to the tensors there, copied once, so that no step waits for a copy."""
    copies: dict[torch.device, tuple[Tensor, ...]] = {}

    def on(device: torch.device) -> tuple[Tensor, ...]:
        if device not in copies:
            copies[device] = tuple(tensor.to(device) for tensor in tensors)
        return copies[device]

    return on
