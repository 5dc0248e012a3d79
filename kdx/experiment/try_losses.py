"""The losses and the temperature of a run on random logits and features."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.config.errors import ConfigError
from kdx.data.source import Images
from kdx.experiment import build
from kdx.experiment.build import Parts
from kdx.experiment.probe import Probe
from kdx.networks import features
from kdx.networks.network import Network
from kdx.teachers.ensemble import combine
from kdx.temperatures.base import Temperature
from kdx.training.step import checked_temperature
from kdx.types import LossContext, Outputs, Progress, TemperaturePair

EXAMPLES = 8  # in the batch


def try_losses(parts: Parts, student: Probe, teachers: Mapping[str, Probe], train: Images) -> dict[str, Tensor]:
    """Run temperature and losses on random logits. Return what they learn, by the names in a checkpoint."""
    config, num_classes = parts.config, parts.num_classes
    objective = build.objective(config)  # new instances: those of `parts` are connected later, to the trained networks
    temperature: Temperature | None = build.make(config.temperature, "temperature")
    torch.manual_seed(0)
    if temperature is not None:
        temperature.connect(num_classes)
    single = teachers.get("teacher")
    labels = None if train.labels is None else torch.from_numpy(train.labels)
    context = LossContext(num_classes, len(train), labels, student.shapes)
    if single is not None:
        context = LossContext(
            num_classes, len(train), labels, student.shapes, single.shapes, lambda pooled: _random_head(single.network, pooled)
        )
    try:
        objective.connect(context)
        outputs = _random_outputs(parts, student, single)
        for progress in (Progress(0.0, 0), Progress(0.5, 0), Progress(1.0, 0)):
            outputs.progress = progress
            if temperature is not None and outputs.teacher_logits is not None:
                value = temperature(outputs.student_logits, outputs.teacher_logits, progress)
                outputs.temperature = checked_temperature(value, temperature, len(outputs.student_logits))
                _check_positive(outputs.temperature, temperature, progress)
            parts_of_loss = objective(outputs).parts
    except ConfigError:
        raise
    except ValueError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(("losses", "temperature")) else f"losses: {message}") from error
    learned_from = [outputs.student_logits, *outputs.student_features.values()]
    for name, loss in parts_of_loss.items():
        gradients = (
            torch.autograd.grad(loss, learned_from, retain_graph=True, allow_unused=True) if loss.requires_grad else (None,)
        )
        if objective.terms[name].weight > 0 and all(gradient is None for gradient in gradients):
            raise ConfigError(
                f"losses.{name} has no gradient with respect to the student: compute it from outputs.student_logits or "
                "outputs.student_features, without detach(), argmax() or item()"
            )
    learned = {f"objective.{key}": value for key, value in objective.state_dict().items()}
    if temperature is not None:
        learned |= {f"distiller.temperature.{key}": value for key, value in temperature.state_dict().items()}
    return learned


def _random_outputs(parts: Parts, student: Probe, teacher: Probe | None) -> Outputs:
    """Return random logits and features with the shapes of this run, and labels if the data set has them."""
    config, num_classes = parts.config, parts.num_classes
    size = min(EXAMPLES, config.data.batch_size)
    outputs = Outputs(torch.randn(size, num_classes, requires_grad=True), index=torch.arange(size))
    others = len(config.members) + (len(config.peers.members) if config.peers is not None else 0)
    if others:
        how = config.teacher.combine if config.teacher is not None else config.peers.combine if config.peers else "logits"
        each = torch.randn(others, size, num_classes)
        outputs.teacher_logits = combine(each, how) if others > 1 else each[0]
        outputs.member_logits = each if how == "losses" and (others > 1 or config.peers is not None) else None
    if parts.source.train_labels:
        outputs.label = torch.arange(size) % num_classes
        if parts.mixing is not None:
            target = F.one_hot(outputs.label, num_classes).float()
            outputs.mixed_target = 0.7 * target + 0.3 * target.roll(1, 0)
    outputs.student_features = {path: torch.randn(size, *shape, requires_grad=True) for path, shape in student.shapes.items()}
    if teacher is not None:
        outputs.teacher_features = {path: torch.randn(size, *shape) for path, shape in teacher.shapes.items()}
    return outputs


def _random_head(network: Network, pooled: Tensor) -> Tensor:
    """Return logits [B,K] for pooled features [B,F], from a last layer like the teacher's with random weights."""
    layer = copy.deepcopy(features.classifier(network.model)).to_empty(device=pooled.device)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    stand_in: Any = SimpleNamespace(get_classifier=lambda: layer)
    return features.logits_of(stand_in, pooled)


def _check_positive(value: Any, temperature: Temperature, progress: Progress) -> None:
    """Raise ConfigError if a temperature is not a positive number."""
    for tensor in value if isinstance(value, TemperaturePair) else (value,):
        if not bool((torch.isfinite(tensor) & (tensor > 0)).all()):
            worst = tensor.detach().flatten()[int(tensor.detach().flatten().argmin())].item()
            raise ConfigError(
                f"temperature: {type(temperature).__name__} returned {worst:g} at progress {progress.fraction:g}; "
                "expected values greater than 0: clamp it, e.g. .clamp(min=0.1)"
            )
