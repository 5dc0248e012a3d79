"""Losses of one of several heads, such as the class and the distillation head of DeiT (arXiv:2012.12877)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kdx.losses.functional import upcast
from kdx.losses.objective import Loss
from kdx.ranges import Text, validated
from kdx.types import LossContext, Outputs


@validated
class AtHead(Loss):
    """Another loss, of the logits that one of the student's heads returned instead of those of the student.

    timm's networks with two heads, such as deit_tiny_distilled_patch16_224, return the mean of their logits, also in training:
    `head` and `head_dist` are the paths of the two. The temperature of the step is that of the mean.

    Args:
        head: path of the module that returns the logits [B,K].
        loss: the loss of these logits.
    """

    def __init__(self, head: Text, loss: Loss) -> None:
        super().__init__()
        self.head, self.loss = head, loss
        self.needs_teacher, self.needs_temperature = loss.needs_teacher, loss.needs_temperature
        self.needs_label, self.needs_one_label = loss.needs_label, loss.needs_one_label
        self.min_classes, self.too_few_classes = loss.min_classes, loss.too_few_classes
        self.student_features = (head, *loss.student_features)
        self.teacher_features = loss.teacher_features

    def connect(self, context: LossContext) -> None:
        shape = context.student_features[self.head]
        if shape != torch.Size([context.num_classes]):
            raise ValueError(
                f"Module '{self.head}' returns {list(shape)} per example; expected logits of {context.num_classes} classes: "
                "set `head` to a last layer of the student, e.g. head_dist"
            )
        self.loss.connect(context)

    def forward(self, outputs: Outputs) -> Tensor:
        return self.loss(replace(outputs, student_logits=upcast(outputs.student_features[self.head])))
