"""Layer type ContrastiveLoss: pairs pulled together or pushed apart (Siamese nets)."""

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


def _dissimilar_loss(squared: Tensor, margin: float, legacy_version: bool) -> Tensor:
    """Return the loss of pairs that should be far apart, given their squared distances; its gradient is Caffe's."""
    if legacy_version:
        return (margin - squared).relu()
    distance = squared.detach().sqrt()
    missing = (margin - distance).relu()
    # Caffe's backward pass divides by distance + 1e-4, so that equal pairs have a finite gradient.
    return with_gradient_of(missing.square(), -missing / (distance + 1e-4) * squared)


class ContrastiveLoss(Loss):
    """Compute half the mean of d² for similar pairs and max(margin - d, 0)² for dissimilar pairs of vectors.

    d is the Euclidean distance of a pair. With legacy_version, dissimilar pairs have max(margin - d², 0).

    Source: src/caffe/layers/contrastive_loss_layer.cpp.
    Shape: N×C, N×C, N flags (not 0: the pair is similar) → scalar.
    Blobs: none.
    Differs: PyTorch has no such module. Caffe's gradient of a distance d is d/(d + 1e-4) times the true one.
    """

    type = "ContrastiveLoss"
    params = (ContrastiveLossParameter,)
    bottoms = exactly(3)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        a, b, similar = bottoms
        if legacy_size(layer, a, 1) != legacy_size(layer, b, 1):
            raise layer.error(f"bottoms differ, {show_all((a, b))}; it needs equal numbers of channels")
        if any(legacy_size(layer, shape, axis) != 1 for shape in bottoms for axis in (2, 3)):
            raise layer.error(f"its bottoms are {show_all(bottoms)}; it needs heights and widths of 1")
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
                each = torch.where(together, squared, _dissimilar_loss(squared, p.margin, p.legacy_version))
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
