"""All numbers about one split, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from kdx.metrics.base import EvaluationMetric, Prediction, PredictionBatch
from kdx.metrics.selection import applicable
from kdx.metrics.table import MetricTable
from kdx.types import Outputs

PIECE = 1 << 18  # numbers [B,K] that are read at a time, so that many classes do not leave the processor's cache


class Suite(Metric):
    """Collects Outputs and computes `{name: float}`: `student/accuracy`, `teacher/ece`, `agreement`, `kl`, ...

    Its state is one vector of float64 sums, whatever the size of the split, and is added over ranks: exact as long as every
    example is seen once. Metrics that need labels or a teacher are left out without them.

    Args:
        num_classes: K.
        added: Metrics beside the built-in ones, by name.
        teacher: Whether there is a teacher, or peers in its place.
        labels: Whether there are labels.
    """

    full_state_update = False
    higher_is_better = None
    total: Tensor
    count: Tensor

    def __init__(
        self,
        num_classes: int,
        added: Mapping[str, EvaluationMetric] | None = None,
        *,
        teacher: bool = True,
        labels: bool = True,
    ) -> None:
        super().__init__()
        metrics = applicable(added, num_classes, labels=labels, teacher=teacher)
        self.networks = ("student", "teacher") if teacher else ("student",)
        self.of_network = MetricTable({n: m for n, m in metrics.items() if not m.needs_teacher}, num_classes)
        self.of_pair = MetricTable({n: m for n, m in metrics.items() if m.needs_teacher}, num_classes)
        size = len(self.networks) * self.of_network.size + self.of_pair.size
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def names(self) -> list[str]:
        """Names of the numbers, in their order."""
        return [*(f"{network}/{name}" for network in self.networks for name in self.of_network.metrics), *self.of_pair.metrics]

    def update(self, outputs: Outputs) -> None:
        """Add a batch; logits are read at temperature 1.

        Raises:
            ValueError: A metric returns the wrong shape; the message begins with its name.
        """
        rows = max(PIECE // outputs.student_logits.shape[-1], 1)
        logits = {"student": outputs.student_logits, "teacher": outputs.teacher_logits}
        split = []
        for network in self.networks:
            of_network = logits[network]
            assert of_network is not None, f"the suite measures a {network}, and the batch has none"
            split.append(of_network.split(rows))
        labels = [None] * len(split[0]) if outputs.label is None else outputs.label.split(rows)
        for label, *piece in zip(labels, *split, strict=True):
            self._add(label, piece)

    def _add(self, label: Tensor | None, logits: list[Tensor]) -> None:
        """Add the logits of each network for the same examples."""
        predictions = [Prediction.of(of_network) for of_network in logits]
        sums = [self.of_network.sums(PredictionBatch(prediction, label)) for prediction in predictions]
        sums.append(
            self.of_pair.sums(PredictionBatch(predictions[0], label, predictions[-1] if len(predictions) > 1 else None))
        )
        self.total += torch.cat(sums)
        self.count += len(logits[0])

    def compute(self) -> dict[str, float]:
        """Return the numbers over everything that was added, on all ranks."""
        total, count = self.total.cpu(), self.count.cpu()
        *networks, pair = total.split([*[self.of_network.size] * len(self.networks), self.of_pair.size])
        numbers = {
            f"{network}/{name}": value
            for network, sums in zip(self.networks, networks, strict=True)
            for name, value in self.of_network.results(sums, count).items()
        }
        return numbers | self.of_pair.results(pair, count)


class Suites(nn.Module):
    """A suite for the student, and one for each of its peers, whose numbers are called `peer_NAME/accuracy` and so on."""

    def __init__(
        self,
        num_classes: int,
        peers: Iterable[str] = (),
        added: Mapping[str, EvaluationMetric] | None = None,
        *,
        teacher: bool = True,
        labels: bool = True,
    ) -> None:
        super().__init__()
        self.student = Suite(num_classes, added, teacher=teacher, labels=labels)
        self.peers = nn.ModuleDict({name: Suite(num_classes, added, teacher=teacher, labels=labels) for name in peers})

    @property
    def names(self) -> list[str]:
        """Names of the numbers, in their order."""
        of_peer = [name.removeprefix("student/") for name in self.student.names if not name.startswith("teacher/")]
        return [*self.student.names, *(f"peer_{peer}/{name}" for peer in self.peers for name in of_peer)]

    def update(self, outputs: Outputs) -> None:
        """Add a batch."""
        self.student.update(outputs)
        for name, peer in outputs.peers.items():
            suite = self.peers[name]
            assert isinstance(suite, Suite)
            suite.update(peer)

    def compute(self) -> dict[str, float]:
        """Return the numbers over everything that was added, on all ranks, and reset."""
        numbers = self.student.compute()
        self.student.reset()
        for name, suite in self.peers.items():
            assert isinstance(suite, Suite)
            peer = {
                what.removeprefix("student/"): value
                for what, value in suite.compute().items()
                if not what.startswith("teacher/")
            }
            suite.reset()
            numbers |= {f"peer_{name}/{what}": value for what, value in peer.items()}
        return numbers
