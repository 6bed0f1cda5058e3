"""PyTorch module of CenterLoss, with Caffe's gradients, which are not the derivatives of the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _CenterDistance(torch.autograd.Function):
    """Half the mean squared distance to the centre of the label's class, with Caffe's gradients.

    Source: ydwen/caffe-face src/caffe/layers/center_loss_layer.cpp Forward_cpu, Backward_cpu.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, center: Tensor, labels: Tensor) -> Tensor:
        distance = x - center[labels]
        ctx.save_for_backward(distance, labels)
        ctx.classes = len(center)
        return distance.square().sum() / len(x) / 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        distance, labels = ctx.saved_tensors
        sums = distance.new_zeros(ctx.classes, distance.shape[1]).index_add(0, labels, -distance)
        counts = torch.bincount(labels, minlength=ctx.classes) + 1
        return distance * (grads[0] / len(distance)), sums / counts[:, None], None


class CenterLoss(nn.Module):
    """Computes the centre loss of features N×K and N labels, with a learned centre for each class."""

    def __init__(self, classes: int, length: int) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.zeros(classes, length))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        targets = labels.detach().flatten().long()
        loss: Tensor = _CenterDistance.apply(x.flatten(1), self.center, targets)  # type: ignore[no-untyped-call]
        return loss
