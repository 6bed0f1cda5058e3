"""Layer type SmoothL1LossOHEM (R-FCN): a smooth L1 loss for online hard example mining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.loss.smooth_l1_loss import check_equal_sizes, weighted_difference
from prototxt_gen.layers.loss_base import Loss, legacy_size, normalization_mode, normalizer
from prototxt_gen.schema.caffe_proto import LossParameter

if TYPE_CHECKING:
    from torch import Tensor, nn


class SmoothL1LossOHEM(Loss):
    """Compute SmoothL1Loss with a choice of normalisation; the second top is the loss of each position.

    Source: intel/caffe src/caffe/layers/smooth_L1_loss_ohem_layer.cpp (R-FCN's).
    Shape: x, target, optionally weights, all N×C×H×W → scalar, N×1×H×W.
    Blobs: none.
    Differs: PyTorch has no such module. The weights are not part of the gradient. The default loss weight is 0.
    """

    type = "SmoothL1LossOHEM"
    params = (LossParameter,)
    bottoms = Arity(2, 3)
    tops = Arity(0, 2)
    loss = False

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        super().shapes(layer, bottoms)
        n, height, width = (legacy_size(layer, bottoms[0], axis) for axis in (0, 2, 3))
        return [(), (n, 1, height, width)][: len(layer.tops)]

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        check_equal_sizes(layer, bottoms)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn
        from torch.nn import functional

        mode, each_too = normalization_mode(layer.get(LossParameter)), len(layer.tops) == 2

        class SmoothL1LossOHEM(nn.Module):
            def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, Tensor]:
                difference = weighted_difference(bottoms)
                errors = functional.smooth_l1_loss(difference, difference.new_zeros(difference.shape), reduction="none")
                each = errors.reshape(*difference.shape, *[1] * (4 - difference.dim())).sum(1, keepdim=True)
                positions = errors.new_tensor(each.numel())
                loss = each.sum() / normalizer(mode, len(difference), each[0].numel(), positions)
                return (loss, each.detach()) if each_too else loss

        return SmoothL1LossOHEM()

    examples = (
        Example("plain", ((3, 4), (3, 4)), "loss_weight: 1"),
        Example(
            "two tops",
            ((3, 4), (3, 4), (3, 4)),
            "loss_weight: 1 loss_weight: 0 loss_param { normalization: FULL }",
            2,
        ),
    )
