"""A student ready for export, and what files say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdx.export import student
from kdx.export.parity import LogitsFunction, noise
from kdx.export.request import ExportRequest
from kdx.networks.network import Network

FOLDED = "calibration_temperature_folded"  # key of the temperature that the files include; None: they do not


@dataclass(frozen=True)
class Ready:
    """A student ready for export."""

    request: ExportRequest
    trained: Network
    network: Network  # with the temperature folded into its last layer, if requested
    reference: LogitsFunction  # the trained student, with its logits divided by this temperature
    batches: list[Tensor]  # for the comparison
    temperature: float | None  # calibrates the logits of the trained student
    divisor: float | None  # the temperature that the files include; None: they do not

    @property
    def card(self) -> dict[str, Any]:
        """The content of the run's student.json, with the temperatures."""
        return {**self.request.run.card, "calibration_temperature": self.temperature, FOLDED: self.divisor}

    @property
    def notes(self) -> dict[str, str]:
        """The metadata of files that need no student.json, as texts by name."""
        run, card = self.request.run, self.card
        channels, side, _ = run.shape
        divided = f", divided by the calibration temperature {self.divisor}" if self.divisor else ""
        return {
            "input": f"images [batch,{channels},{side},{side}], float32 in [0,1]; the graph includes the normalization",
            "output": f"logits [batch,{self.network.num_classes}]{divided}; softmax gives probabilities",
            "architecture": self.network.architecture,
            "pretrained_cfg": json.dumps(card["pretrained_cfg"]),
            "interpolation": json.dumps(card.get("interpolation")),
            "label_names": json.dumps(card.get("label_names"), ensure_ascii=False),
            "calibration_temperature": json.dumps(self.temperature),
            FOLDED: json.dumps(self.divisor),
            "run": f"{run.config.get('name')}/{run.path.resolve().name}",
        }

    def calibrated_by(self, temperature: float | None) -> Ready:
        """Return it for a file whose logits another temperature calibrates, and that includes it, if requested."""
        return replace(self, temperature=temperature, divisor=temperature if self.divisor is not None else None)


def ready(request: ExportRequest) -> Ready:
    """Return the student of a request, with its calibration temperature folded in if requested."""
    trained = student.load(request.run)
    divisor = 1.0 if request.temperature is None else request.temperature
    network = trained if request.temperature is None else student.folded(trained, request.temperature)

    def reference(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return trained(images) / divisor

    batches = noise(request.run.shape, request.batches)
    fitted = request.run.calibration_temperature
    return Ready(request, trained, network, reference, batches, fitted, request.temperature)
