"""ContrastiveLoss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import exactly, show_all
from prototxt_gen.layers.example import Example, labels, literal, normal
from prototxt_gen.layers.loss_base import Loss, legacy_size, with_gradient_of
from prototxt_gen.schema.message import Message, boolean, float32

if TYPE_CHECKING:
    from torch import Tensor, nn


class ContrastiveLossParameter(Message, field="contrastive_loss_param", number=105):
    margin = float32(1, 1.0)
    legacy_version = boolean(2)


def _far_apart(squared: Tensor, margin: float, legacy_version: bool) -> Tensor:
    """The loss of pairs that should differ, of their squared distances; its gradient is the one Caffe takes."""
    if legacy_version:
        return (margin - squared).relu()
    distance = squared.detach().sqrt()
    gap = (margin - distance).relu()
    # Caffe divides by distance + 1e-4 going back, so that equal pairs give no infinite gradient.
    return with_gradient_of(gap.square(), -gap / (distance + 1e-4) * squared)


class ContrastiveLoss(Loss):
    """Squared distance of pairs that belong together, squared lack of distance of those that do not; half the average.

    Source: src/caffe/layers/contrastive_loss_layer.cpp.
    Shape: N×C, N×C, N (not 0: the pair belongs together) → scalar.
    Blobs: none.
    Differs: PyTorch has none. Caffe's gradient of a distance d is d/(d + 1e-4) of the true one.
    """

    type = "ContrastiveLoss"
    params = (ContrastiveLossParameter,)
    bottoms = exactly(3)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        a, b, similar = bottoms
        if legacy_size(layer, a, 1) != legacy_size(layer, b, 1):
            raise layer.error(f"bottoms differ, {show_all((a, b))}; it needs as many channels")
        if any(legacy_size(layer, shape, axis) != 1 for shape in bottoms for axis in (2, 3)):
            raise layer.error(f"its bottoms are {show_all(bottoms)}; it takes vectors, of height and width 1")
        if legacy_size(layer, similar, 1) != 1 or (similar and similar[0] < a[0]):
            raise layer.error(f"its third bottom is {show(similar)}; it needs one flag for each pair")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        p = layer.get(ContrastiveLossParameter)

        class ContrastiveLoss(nn.Module):
            def forward(self, a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
                squared = (a - b.reshape(a.shape)).reshape(a.shape[0], -1).square().sum(1)
                together = similar.detach().reshape(-1)[: len(a)].long() != 0
                each = torch.where(together, squared, _far_apart(squared, p.margin, p.legacy_version))
                return each.sum() / a.shape[0] / 2

        return ContrastiveLoss()

    examples = (
        Example(
            "plain",
            ((4, 2), (4, 2), (4,)),
            "contrastive_loss_param { margin: 3 }",
            draws=(normal, normal, literal([1, 0, 0, 1])),
            gradients=(True, True, False),
        ),
        Example(
            "legacy, blobs of four axes",
            ((3, 2, 1, 1), (3, 2, 1, 1), (3, 1, 1, 1)),
            "contrastive_loss_param { margin: 4 legacy_version: true }",
            draws=(normal, normal, labels(2)),
            gradients=(True, True, False),
        ),
        Example(
            "close pair, far pair, equal pair",
            ((3, 2), (3, 2), (3, 1)),
            "",
            draws=(literal([[1, 1], [9, 9], [2, 2]]), literal([[1, 1.001], [0, 0], [2, 2]]), literal([0, 0, 0])),
            gradients=(True, True, False),
        ),
    )
