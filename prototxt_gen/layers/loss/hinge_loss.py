"""Layer type HingeLoss: the one-against-all hinge loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example, labels, normal
from prototxt_gen.layers.loss_base import Loss, as_labels, legacy_size
from prototxt_gen.schema.message import Message, enum

if TYPE_CHECKING:
    from torch import nn


class HingeLossParameter(Message, field="hinge_loss_param", number=114):
    norm = enum(1, "L1", "L2", first=1)


class HingeLoss(Loss):
    """Sum max(0, 1 - score) for the true class and max(0, 1 + score) for the others; L2 squares the terms first.

    Source: src/caffe/layers/hinge_loss_layer.cpp.
    Shape: scores N×…, labels N×… → scalar; only the first N labels are used.
    Blobs: none.
    Differs: torch.nn.MultiMarginLoss compares the scores with each other.
    """

    type = "HingeLoss"
    params = (HingeLossParameter,)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        legacy_size(layer, bottoms[0], 0)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import Tensor, nn

        squared = layer.get(HingeLossParameter).norm == "L2"

        class HingeLoss(nn.Module):
            def forward(self, x: Tensor, label: Tensor) -> Tensor:
                scores = x.reshape(x.shape[0], -1)
                sign = torch.ones_like(scores)
                sign.scatter_(1, as_labels(label)[: len(scores), None], -1.0)
                margins = torch.relu(1 + sign * scores)
                return (margins.square() if squared else margins).sum() / x.shape[0]

        return HingeLoss()

    examples = (
        Example("L1", ((3, 4), (3,)), draws=(normal, labels(4)), gradients=(True, False)),
        Example(
            "L2",
            ((2, 3, 1, 1), (2, 1, 1, 1)),
            "hinge_loss_param { norm: L2 }",
            draws=(normal, labels(3)),
            gradients=(True, False),
        ),
        Example("flattened", ((2, 2, 3), (2, 1)), draws=(normal, labels(6)), gradients=(True, False)),
    )
