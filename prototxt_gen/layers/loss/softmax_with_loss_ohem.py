"""Layer type SoftmaxWithLossOHEM (R-FCN): a softmax loss for online hard example mining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import Arity
from prototxt_gen.layers.example import Example, labels, literal, normal
from prototxt_gen.layers.loss.softmax_with_loss import NO_LABEL, cross_entropy
from prototxt_gen.layers.loss_base import Loss, as_labels, check_labels, normalization_mode, normalizer
from prototxt_gen.layers.utility.softmax import SoftmaxParameter
from prototxt_gen.schema.caffe_proto import LossParameter

if TYPE_CHECKING:
    from torch import nn


class SoftmaxWithLossOHEM(Loss):
    """Compute SoftmaxWithLoss; further tops are the softmax and the loss of each position.

    Source: intel/caffe src/caffe/layers/softmax_loss_ohem_layer.cpp (R-FCN's).
    Shape: scores N×C×…, labels N×… → scalar, N×C×…, the loss of each position in the shape of the labels.
    Blobs: none.
    Differs: PyTorch has no such module. Ignored positions have loss 0, as in R-FCN's GPU code; with ignored positions
        Intel's CPU code sums the wrong ones.
    """

    type = "SoftmaxWithLossOHEM"
    params = (LossParameter, SoftmaxParameter)
    tops = Arity(0, 3)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(layer.tops) > 1 and len(layer.params.loss_weight) != len(layer.tops):
            raise layer.error(f"it has {len(layer.tops)} tops; it needs a loss_weight for each top")
        first = list(super().shapes(layer, bottoms))
        return [*first, bottoms[1]][: len(layer.tops)]

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        axis = canonical_axis(layer, layer.get(SoftmaxParameter).axis, bottoms[0])
        check_labels(layer, bottoms[0], bottoms[1], axis)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import Tensor, nn

        p, axis = layer.get(LossParameter), canonical_axis(layer, layer.get(SoftmaxParameter).axis, bottoms[0])
        mode, ignored = normalization_mode(p), p.ignore_label if p.has("ignore_label") else NO_LABEL
        tops = max(1, len(layer.tops))

        class SoftmaxWithLossOHEM(nn.Module):
            def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
                rows, flat = x.movedim(axis, -1).reshape(-1, x.shape[axis]), as_labels(label)
                each, outer = cross_entropy(rows, flat, ignored), math.prod(x.shape[:axis])
                loss = each.sum() / normalizer(mode, outer, len(rows) // outer, (flat != ignored).sum())
                outputs = (loss, x.detach().softmax(axis), each.detach().reshape(label.shape))
                return outputs[:tops] if tops > 1 else loss

        return SoftmaxWithLossOHEM()

    examples = (
        Example("plain", ((3, 4), (3,)), "loss_param { normalization: FULL }", draws=(normal, labels(4))),
        Example(
            "three tops",
            ((2, 3, 2, 1), (2, 1, 2, 1)),
            "loss_weight: 0 loss_weight: 0 loss_weight: 0 loss_param { ignore_label: 1 }",
            3,
            draws=(normal, literal([0, 1, 2, 1])),
        ),
    )
