"""Layer type MultinomialLogisticLoss: the logarithmic loss of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.example import Example, labels, literal, probabilities
from prototxt_gen.layers.loss_base import LOG_THRESHOLD, Loss, as_labels, legacy_size, with_gradient_of

if TYPE_CHECKING:
    from torch import nn


class MultinomialLogisticLoss(Loss):
    """Compute minus the logarithm of the true class's probability, averaged over the batch.

    Its first bottom is usually the top of a Softmax layer.

    Source: src/caffe/layers/multinomial_logistic_loss_layer.cpp.
    Shape: probabilities N×…, labels N×1×1×1 → scalar.
    Blobs: none.
    Differs: torch.nn.NLLLoss takes logarithms. Probabilities below 1e-20 count as 1e-20, in the gradient too.
    """

    type = "MultinomialLogisticLoss"

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        legacy_size(layer, bottoms[0], 0)
        if any(legacy_size(layer, bottoms[1], axis) != 1 for axis in (1, 2, 3)):
            raise layer.error(f"its labels are {show(bottoms[1])}; it needs one for each item of the batch")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import Tensor, nn

        class MultinomialLogisticLoss(nn.Module):
            def forward(self, x: Tensor, label: Tensor) -> Tensor:
                p = x.reshape(x.shape[0], -1).gather(1, as_labels(label)[:, None])
                return -with_gradient_of(p.clamp(min=LOG_THRESHOLD), p).log().sum() / x.shape[0]

        return MultinomialLogisticLoss()

    examples = (
        Example("plain", ((3, 4), (3,)), draws=(probabilities, labels(4)), gradients=(True, False)),
        Example("flattened", ((2, 2, 2, 1), (2, 1, 1, 1)), draws=(probabilities, labels(4)), gradients=(True, False)),
        Example(
            "probability of nearly nothing",
            ((2, 2), (2, 1)),
            draws=(literal([[1e-22, 1], [0.5, 0.5]]), literal([0, 1])),
            gradients=(True, False),
        ),
    )
