"""compile=teacher|both: the networks of a training step are compiled before the first step, and are plain after the last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from kdx.config.errors import ConfigError
from kdx.distiller import Cohort
from kdx.networks.compiled import CompileError, compile_in_place, restore
from kdx.networks.network import Network
from kdx.teachers.teacher import OnlineTeacher
from kdx.training.module import DistillationModule

log = logging.getLogger("kdx")

Compiled = Literal["teacher", "both"]


class Compiling(Callback):
    """Compiles the teacher, or the teacher and all students, for the batches of training, and logs what it takes and saves.

    Validation and tests run the plain networks, as do batches of another size. Weights, statistics of BatchNorm, gradients and
    random numbers are not changed.

    Args:
        which: the networks.
        batch_size: images of a batch, over all devices.
        teacher_side, student_sides: resolutions in training, px.
    """

    def __init__(self, which: Compiled, batch_size: int, teacher_side: int, student_sides: list[int]) -> None:
        self.which, self.batch_size = which, batch_size
        self.teacher_side, self.student_sides = teacher_side, student_sides
        self.networks: list[Network] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, DistillationModule)
        precision = trainer.precision_plugin.forward_context
        for name, network, runs in self._runs(pl_module, self.batch_size // trainer.world_size):
            self.networks.append(network)
            try:
                with precision(), unchanged(network):
                    trial = compile_in_place(network, runs)
            except CompileError as error:
                self._end()
                raise ConfigError(f"compile={self.which}: torch cannot compile {error}: use compile=null") from error
            log.info(
                "%s is compiled in %.1f s: %.2f ms instead of %.2f ms a step, which pays after %.0f of %d steps",
                *(name, trial.warm_up_seconds, trial.compiled_ms, trial.plain_ms, trial.pays_after, pl_module.total_steps),
            )
        torch.compiler.set_stance("eager_on_recompile")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end()

    def on_exception(self, *_: Any) -> None:
        self._end()

    def _end(self) -> None:
        torch.compiler.set_stance("default")
        for network in self.networks:
            restore(network)
        self.networks = []

    def _runs(self, module: DistillationModule, batch_size: int) -> Iterator[tuple[str, Network, list[Callable[[], Any]]]]:
        """Yield each network with its name and its part of a step at each of its resolutions."""
        distiller = module.distiller
        if distiller.teacher is not None and module.targets is None:
            for name, member in distiller.teacher.members.items():
                assert isinstance(member, OnlineTeacher)
                images = _images(batch_size, member.network, member.resolution or self.teacher_side)
                yield name, member.running(images.shape[-1]), [_answer(member, images)]
        if self.which == "teacher":
            return
        peers = dict(distiller.peers.items()) if isinstance(distiller, Cohort) else {}
        for name, network in {"student": distiller.student, **peers}.items():
            assert isinstance(network, Network)
            yield name, network, [_learn(network, _images(batch_size, network, side)) for side in self.student_sides]


def _images(batch_size: int, network: Network, side: int) -> Tensor:
    return torch.zeros(batch_size, network.in_channels, side, side, device=network.mean.device)


def _answer(member: OnlineTeacher, images: Tensor) -> Callable[[], Any]:
    return torch.no_grad()(lambda: member.logits(images))


def _learn(network: Network, images: Tensor) -> Callable[[], Any]:
    return lambda: network(images).float().square().mean().backward()


@contextmanager
def unchanged(network: Network) -> Iterator[None]:
    """Restore the buffers of a network, such as statistics of BatchNorm, its gradients and the random numbers afterwards."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    gradients = {parameter: parameter.grad for parameter in network.parameters()}
    for parameter in gradients:
        parameter.grad = None
    with torch.random.fork_rng():
        yield
    for parameter, gradient in gradients.items():
        parameter.grad = gradient
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(buffers[name])
