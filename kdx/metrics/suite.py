"""The suite: every number about one split, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from kdx.metrics import calibration, functional
from kdx.types import Outputs


class Suite(Metric):
    """Collects Outputs and computes `{name: float}`: `student/accuracy`, `teacher/ece`, `agreement`, `kl`, ...

    Its state is a handful of float64 sums, whatever the size of the split, and is added up over ranks: exact as long as
    every example is seen once. Without labels only entropy, agreement and KL are given; without a teacher only the student.
    """

    full_state_update = False
    higher_is_better = None
    sums: Tensor
    bins: Tensor
    count: Tensor

    def __init__(self, num_classes: int, *, teacher: bool = True, labels: bool = True, num_bins: int = 15) -> None:
        super().__init__()
        self.num_bins, self.labels = num_bins, labels
        self.networks = ("student", "teacher") if teacher else ("student",)
        self.own = functional.names(num_classes, labels=labels)
        self.pair = ["agreement", "kl"] if teacher else []
        self.names = [f"{network}/{name}" for network in self.networks for name in self.own] + self.pair
        self.add_state("sums", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("bins", torch.zeros(len(self.networks), 3, num_bins, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Outputs) -> None:
        """Add a batch. Logits are read at temperature 1."""
        logits = {"student": outputs.student_logits, "teacher": outputs.teacher_logits}
        log_probs = {}
        values = []
        for i, network in enumerate(self.networks):
            given = logits[network]
            assert given is not None, f"the suite measures a {network}, and there is none"
            log_probs[network] = torch.log_softmax(given.to(torch.float64), -1)
            values += functional.measure(self.own, log_probs[network], outputs.label)
            if self.labels:
                assert outputs.label is not None
                self.bins[i] += calibration.bins(log_probs[network], outputs.label, self.num_bins)
        if self.pair:
            values.append(functional.agreement(log_probs["student"], log_probs["teacher"]))
            values.append(functional.kl(log_probs["student"], log_probs["teacher"]))
        self.sums += torch.stack(values).sum(-1)
        self.count += len(outputs.student_logits)

    def compute(self) -> dict[str, float]:
        """The numbers over everything that was added, on all ranks."""
        numbers = dict(zip(self.names, (self.sums / self.count).tolist(), strict=True))
        if self.labels:
            for network, sums in zip(self.networks, self.bins, strict=True):
                numbers[f"{network}/ece"] = calibration.expected_calibration_error(sums).item()
        return numbers


class Suites(nn.Module):
    """A suite for the student, and one for each of its peers, whose numbers are called `peer_NAME/accuracy` and so on."""

    def __init__(self, num_classes: int, peers: Iterable[str] = (), *, teacher: bool = True, labels: bool = True) -> None:
        super().__init__()
        self.student = Suite(num_classes, teacher=teacher, labels=labels)
        self.peers = nn.ModuleDict({name: Suite(num_classes, teacher=teacher, labels=labels) for name in peers})

    def update(self, outputs: Outputs) -> None:
        """Add a batch."""
        self.student.update(outputs)
        for name, peer in outputs.peers.items():
            suite = self.peers[name]
            assert isinstance(suite, Suite)
            suite.update(peer)

    def compute(self) -> dict[str, float]:
        """The numbers over everything that was added, on all ranks; then they are forgotten."""
        numbers = self.student.compute()
        self.student.reset()
        for name, suite in self.peers.items():
            assert isinstance(suite, Suite)
            found = suite.compute()
            suite.reset()
            own = {what.removeprefix("student/"): value for what, value in found.items() if not what.startswith("teacher/")}
            numbers |= {f"peer_{name}/{what}": value for what, value in own.items()}
        return numbers
