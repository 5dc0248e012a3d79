"""Dry run: every network, loss and temperature once, without data or weights, before anything is trained."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.config.errors import ConfigError
from kdx.config.schema import Node
from kdx.data.source import Images, SplitName
from kdx.experiment import build, cautions, resume
from kdx.experiment.assemble import make_network
from kdx.experiment.build import Parts
from kdx.experiment.teacher import NAME as TEACHER
from kdx.networks import features
from kdx.networks.features import FeatureTaps
from kdx.networks.network import Network, checked_logits
from kdx.teachers.ensemble import combine
from kdx.temperatures.base import Temperature
from kdx.training.ranks import rank
from kdx.training.step import checked_temperature
from kdx.types import LossContext, Outputs, Progress, TemperaturePair

log = logging.getLogger("kdx")

FAILURES = (AssertionError, RuntimeError, ValueError, IndexError, ZeroDivisionError)  # of a network on unsuitable images
LARGEST = 1024  # px; larger sides are not tried as a remedy
EXAMPLES = 8  # in the batch of the losses


@dataclass
class Probe:
    """A network that has run once: the shapes of its captured features, without the batch, and the warnings about it."""

    network: Network
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def dry_run(parts: Parts, splits: Mapping[SplitName, Images]) -> None:
    """Run networks, losses and temperature once, and log warnings about the config.

    Networks run on the meta device, which computes shapes and no values, so large ones take less than a second; losses and the
    temperature run on random logits and features.

    Raises:
        ConfigError: If a network does not take images of its resolution, a path of features does not exist, a loss or the
            temperature returns something else than expected, or `ckpt_path` does not fit.
    """
    config, train = parts.config, splits["train"]
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not change
        students = _students(parts)
        teachers = _teachers(parts)
        learner = _run_losses(parts, students["student"], teachers, train)
    if config.ckpt_path is not None:
        for name, probe in students.items():
            prefix = "distiller.student." if name == "student" else f"distiller.peers.{name}."
            learner |= {prefix + key: value for key, value in probe.network.state_dict().items()}
    length = cautions.training_length(config, len(train))
    done = resume.check_fit(config, learner, length.total) if config.ckpt_path is not None else []
    if rank() == 0:
        of_networks = [warning for probe in (*students.values(), *teachers.values()) for warning in probe.warnings]
        of_settings = [
            *cautions.about_pixels(config, train),
            *cautions.about_val(config, length),
            *cautions.about_lr(parts, length),
        ]
        for warning in (*of_networks, *of_settings, *done):
            log.warning("%s%s", "teacher: " if config.name == TEACHER else "", warning)


def _students(parts: Parts) -> dict[str, Probe]:
    """Return the student, at its largest resolution, and its peers after a run at each of the student's resolutions."""
    config, paths = parts.config, parts.objective.student_features
    nodes = {"student": ("student", config.student)}
    for name, node in config.peers.members.items() if config.peers is not None else ():
        nodes[name] = (f"peers.members.{name}", node)
    probes = {}
    for name, (path, node) in nodes.items():
        for side in sorted(config.student_resolutions):
            probes[name] = _probe(parts, node, path, "resolution.student", side, paths if name == "student" else (), True)
    return probes


def _teachers(parts: Parts) -> dict[str, Probe]:
    """Return the members of the teacher by config path, each after a run at its resolution."""
    config, probes = parts.config, {}
    for path, member in config.members.items():
        key = "resolution.teacher" if member.resolution is None else f"{path}.resolution"
        side = member.resolution or config.resolution.teacher
        paths = () if config.is_ensemble else parts.objective.teacher_features
        probes[path] = _probe(parts, member.architecture, f"{path}.network", key, side, paths, False)
    return probes


def _probe(parts: Parts, node: Node, path: str, key: str, side: int, paths: Sequence[str], training: bool) -> Probe:
    """Return a network after one forward on images of `side` px. ConfigError, with the remedy, if it fails."""
    try:
        return _run(parts, node, path, side, paths, training, "meta")
    except Exception:  # some networks read values, which meta tensors lack: only a failure with values counts
        try:
            return _run(parts, node, path, side, paths, training, "cpu")
        except ConfigError:
            raise
        except FAILURES as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            remedy = _remedy(parts, node, path, key, side, training, reason)
            raise ConfigError(f"{path}: {node['architecture']} does not run at {key}={side}: {reason}: {remedy}") from error


def _run(parts: Parts, node: Node, path: str, side: int, paths: Sequence[str], training: bool, device: str) -> Probe:
    channels = parts.source.channels
    size = min(2, parts.config.data.batch_size) if training else 2
    with torch.device(device), torch.no_grad():
        network = make_network({**node, "pretrained": False, "init": None}, path, parts.source, parts.num_classes)
        probe = Probe(network.train(training))
        try:
            taps = FeatureTaps(network.model, paths)
        except ValueError as error:
            raise ConfigError(f"features of {path}: {error}") from None
        hooks = [
            module.register_forward_pre_hook(_note_lost_pixels(probe, path, channels, side))
            for module in network.modules()
            if isinstance(module, nn.Conv2d)
        ]
        logits = network(torch.zeros(size, channels, side, side))
        for hook in hooks:
            hook.remove()
    try:
        checked_logits(logits, path, network, (size, parts.num_classes))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    probe.shapes = {name: feature.shape[1:] for name, feature in taps.take().items()}
    return probe


def _note_lost_pixels(probe: Probe, path: str, channels: int, side: int) -> Any:
    """Return a hook that notes the share of the image that a layer of patches omits at the right and lower edge."""

    def hook(conv: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        patch = conv.kernel_size[0]
        takes_image = tuple(inputs[0].shape[1:]) == (channels, side, side)
        if takes_image and patch > 1 and conv.stride == conv.kernel_size == (patch, patch) and conv.padding in (0, (0, 0)):
            lost = 1 - (side // patch * patch / side) ** 2
            if lost > 0:
                probe.warnings.append(
                    f"{path}: patches of {patch} px do not divide images of {side} px, so {lost:.0%} of the pixels are not used"
                    f": use a multiple of {patch} px, e.g. {max(side // patch, 1) * patch} or {(side // patch + 1) * patch}"
                )

    return hook


def _remedy(parts: Parts, node: Node, path: str, key: str, side: int, training: bool, reason: str) -> str:
    """Return what to change so that the network runs, found by trying."""

    def runs(changed: Node, px: int) -> bool:
        try:
            _run(parts, changed, path, px, (), training, "meta")
        except Exception:
            return False
        return True

    if "more than 1 value per channel" in reason:
        return "use data.batch_size=2 or more"
    args = dict(node.get("args") or {})
    if runs({**node, "args": {**args, "img_size": side}}, side):
        return f"{'set' if 'img_size' in args else 'add'} {'' if 'img_size' in args else '+'}{path}.args.img_size={side}"
    larger = side
    while larger * 2 <= LARGEST:
        larger *= 2
        if runs(node, larger):
            return f"use {key}={larger}, or another network"
    if runs(node, native := _native(parts, node, path)):
        return f"use {key}={native}, or another network"
    return f"use another {key}, or another network"


def _native(parts: Parts, node: Node, path: str) -> int:
    """Return the resolution in px for which timm lists the architecture."""
    with torch.device("meta"):
        network = make_network({**node, "pretrained": False, "init": None}, path, parts.source, parts.num_classes)
    config: Any = getattr(network.model, "pretrained_cfg", None) or {}
    return int((config.get("input_size") or (3, 224, 224))[-1])


def _run_losses(parts: Parts, student: Probe, teachers: Mapping[str, Probe], train: Images) -> dict[str, Tensor]:
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
        outputs.target = F.one_hot(outputs.label, num_classes).float()
        if parts.mixing is not None:
            outputs.target = 0.7 * outputs.target + 0.3 * outputs.target.roll(1, 0)
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
