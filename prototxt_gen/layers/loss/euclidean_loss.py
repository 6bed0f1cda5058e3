"""Layer type EuclideanLoss: half the mean squared difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.loss_base import Loss, legacy_size

if TYPE_CHECKING:
    from torch import nn


class EuclideanLoss(Loss):
    """Compute half the sum of squared differences, divided by the batch size.

    Source: src/caffe/layers/euclidean_loss_layer.cpp.
    Shape: N×…, N×… (equally many elements) → scalar.
    Blobs: none.
    Differs: torch.nn.MSELoss has no factor 1/2 and divides by the number of elements. Both bottoms get a gradient.
    """

    type = "EuclideanLoss"

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        legacy_size(layer, bottoms[0], 0)
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; it needs equal sizes")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import Tensor, nn

        class EuclideanLoss(nn.Module):
            def forward(self, x: Tensor, target: Tensor) -> Tensor:
                return (x - target.reshape(x.shape)).square().sum() / x.shape[0] / 2

        return EuclideanLoss()

    examples = (
        Example("images", ((2, 3, 2, 2), (2, 3, 2, 2))),
        Example("vectors of other rank", ((3, 4), (3, 4, 1, 1))),
        Example("one number each", ((4,), (4, 1))),
        Example("weighted", ((2, 3), (2, 3)), "loss_weight: 0.5"),
    )
