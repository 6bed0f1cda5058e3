"""Layer type SigmoidCrossEntropyLoss: the binary cross-entropy of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import show_all
from prototxt_gen.layers.example import Example, literal, normal, probabilities
from prototxt_gen.layers.loss_base import Loss, normalization_mode, normalizer
from prototxt_gen.schema.caffe_proto import LossParameter

if TYPE_CHECKING:
    from torch import nn


class SigmoidCrossEntropyLoss(Loss):
    """Compute the cross-entropy of sigmoid(score) with a target from 0 to 1, for each element on its own.

    Source: src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp.
    Shape: scores N×…, targets N×… (equally many elements) → scalar.
    Blobs: none.
    Differs: torch.nn.BCEWithLogitsLoss divides by the number of elements; here it is the batch size unless loss_param
        specifies another normalisation. A target whose integer part is ignore_label is not counted. Older Caffe, such
        as the SSD fork, has neither of these two settings.
    """

    type = "SigmoidCrossEntropyLoss"
    params = (LossParameter,)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; it needs equal sizes")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import Tensor, nn
        from torch.nn import functional

        p = layer.get(LossParameter)
        mode, ignored = normalization_mode(p, "BATCH_SIZE"), p.ignore_label if p.has("ignore_label") else None

        class SigmoidCrossEntropyLoss(nn.Module):
            def forward(self, x: Tensor, target: Tensor) -> Tensor:
                target = target.detach().reshape(x.shape)
                counted = torch.ones_like(target) if ignored is None else (target.long() != ignored).to(x.dtype)
                each = functional.binary_cross_entropy_with_logits(x, target, reduction="none") * counted
                return each.sum() / normalizer(mode, x.shape[0], x[0].numel(), counted.sum())

        return SigmoidCrossEntropyLoss()

    examples = (
        Example("plain", ((2, 3, 2), (2, 3, 2)), draws=(normal, probabilities), gradients=(True, False)),
        Example(
            "large scores",
            ((2, 2), (2, 2, 1)),
            draws=(literal([[90, -90], [3, 0]]), literal([1, 1, 0, 1])),
            gradients=(True, False),
        ),
        *(
            Example(
                f"ignore_label, {mode}",
                ((2, 3), (2, 3)),
                f"loss_param {{ ignore_label: -1 normalization: {mode} }}",
                draws=(normal, literal([1, -1, 0, 1, 0, -1])),
                gradients=(True, False),
            )
            for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
        ),
        Example(
            "normalize as of old",
            ((2, 3), (2, 3)),
            "loss_param { normalize: true }",
            draws=(normal, probabilities),
            gradients=(True, False),
        ),
    )
