"""BatchNorm over all ranks, so that a run on several devices equals one on a single device with the same global batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.plugins import LayerSync
from torch import Tensor, nn

PLAIN = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}


class _Mean(torch.autograd.Function):
    """Mean of a tensor over all ranks; the gradient is averaged over all ranks too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Mean.forward(ctx, gradient)


class _CrossRank(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose training statistics are those of the global batch. For CPUs, which SyncBatchNorm does not support."""

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()) or self.momentum is None:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        # The ranks' shares of the batch differ if images were skipped.
        number = input.numel() / input.shape[1]
        total: Tensor = _Mean.apply(torch.cat([input.mean(axes) * number, input.new_tensor([number])]))
        mean = total[:-1] / total[-1]
        centered = input - mean.view(shape)
        variance: Tensor = _Mean.apply(centered.square().mean(axes) * number) / total[-1]
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                count = total[-1] * dist.get_world_size()
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
                self.num_batches_tracked += 1
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            return torch.addcmul(self.bias.view(shape), centered, (scale * self.weight).view(shape))
        return centered * scale.view(shape)


class GlobalBatchNorm(LayerSync):
    """torch's SyncBatchNorm on GPUs, and the same arithmetic over gloo on CPUs."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Synchronize the BatchNorm layers of `model`; without effect on a single device."""
        if torch.cuda.is_available() and next(model.parameters()).is_cuda:
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        for module in model.modules():
            if type(module) in PLAIN:
                module._kdx_class = type(module)  # type: ignore[assignment]  # no tensor
                module.__class__ = _CrossRank
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Restore plain BatchNorm layers."""
        for module in model.modules():
            if isinstance(module, _CrossRank):
                module.__class__ = module._kdx_class  # type: ignore[assignment]  # as above
        return model
