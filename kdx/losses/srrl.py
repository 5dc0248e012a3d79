"""Softmax regression representation learning (SRRL, ICLR 2021): pass student features through the teacher's last layer."""

from __future__ import annotations

from torch import Tensor, nn

from kdx.losses.features import FeatureLoss, Paths
from kdx.losses.functional import upcast
from kdx.losses.projectors import linear, positions
from kdx.ranges import validated
from kdx.types import LossContext, Outputs


@validated
class SRRL(FeatureLoss):
    """Mean squared errors of the teacher's pooled feature and of its logits, both from the student's, per example [B].

    A learned connector (1x1 convolution, BatchNorm, optional ReLU) maps the student's pooled feature to the teacher's, and the
    teacher's frozen last layer maps the result to logits. Set `relu=false` if the teacher's pooled features can be negative,
    as in ViT and ConvNeXt.
    """

    def __init__(self, features: Paths, relu: bool = True) -> None:
        super().__init__(features)
        self.require_one_pair()
        self.relu = relu

    def connect(self, context: LossContext) -> None:
        classifier = context.teacher_classifier
        if classifier is None:
            raise ValueError(
                "SRRL needs a teacher with a single last layer, not an ensemble: use another loss, or teacher=online"
            )
        ((student, teacher),) = self.shapes(context)
        projection = linear(student, teacher, bias=False)
        norm = nn.BatchNorm1d(projection.out_features)
        self.connector = nn.Sequential(projection, norm, nn.ReLU() if self.relu else nn.Identity())
        self.classify = lambda feature: classifier(
            feature
        )  # a lambda, so that the teacher's layer is not registered and saved in the checkpoint

    def compare(self, outputs: Outputs) -> Tensor:
        assert outputs.teacher_logits is not None
        ((student, teacher),) = self.pairs(outputs)
        predicted = self.connector(positions(student).mean(1))
        feature = (predicted - positions(teacher).mean(1)).square().mean(-1)
        logits = (upcast(self.classify(predicted)) - upcast(outputs.teacher_logits)).square().mean(-1)
        return feature + logits
