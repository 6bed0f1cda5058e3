"""Layer type SmoothL1Loss (Fast R-CNN, SSD and others); also functions that SmoothL1LossOHEM uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, show_all
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.layers.loss_base import Loss, legacy_size, with_gradient_of
from prototxt_gen.schema.message import Message, float32

if TYPE_CHECKING:
    from torch import Tensor, nn


class SmoothL1LossParameter(Message, field="smooth_l1_loss_param", number=8266712):
    """The parameters of SmoothL1Loss in Faster R-CNN; other forks use other numbers."""

    sigma = float32(1, 1.0)


class SmoothL1Parameter(Message, field="smoothl1_param", number=222):
    """The parameters of SmoothL1Loss in happynear/caffe-windows."""

    turn_point = float32(1, 1.0)


def check_equal_sizes(layer: Layer, bottoms: Sequence[Shape]) -> None:
    """Raise NetError if the bottoms' channels, heights or widths differ."""
    for axis in (1, 2, 3):
        if len({legacy_size(layer, bottom, axis) for bottom in bottoms}) > 1:
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; it needs equal channels, heights and widths")


def weighted_difference(bottoms: Sequence[Tensor]) -> Tensor:
    """Return the difference of the first two bottoms, multiplied by the third (inside weights) if there is one.

    With four bottoms the weights are part of the gradient; with three (Fast R-CNN, SSD) Caffe leaves them out of it.
    """
    difference = bottoms[0] - bottoms[1].reshape(bottoms[0].shape)
    if len(bottoms) == 2:
        return difference
    inside = bottoms[2].detach().reshape(difference.shape)
    return inside * difference if len(bottoms) == 4 else with_gradient_of(inside * difference, difference)


class SmoothL1Loss(Loss):
    """Sum half the square of small differences and the absolute value of large ones; divide by the batch size.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/smooth_L1_loss_layer.cpp (2 bottoms); yjxiong/caffe (Fast
        R-CNN's, 2 or 3); intel/caffe (Faster R-CNN's, 2 or 4, sigma); happynear/caffe-windows (turn_point).
    Shape: x, target, optionally inside weights and outside weights, all of one shape → scalar.
    Blobs: none.
    Differs: torch.nn.SmoothL1Loss divides by the number of elements; its beta is 1/sigma². A third bottom weights the
        differences but not their gradient; with a fourth, both weights apply to the loss and to the gradient. Only
        SSD's layer has loss weight 1 by default; the other forks need loss_weight: 1.
    """

    type = "SmoothL1Loss"
    params = (SmoothL1LossParameter, SmoothL1Parameter)
    bottoms = Arity(2, 4)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        if layer.get(SmoothL1LossParameter) and layer.get(SmoothL1Parameter):
            raise layer.error("smooth_l1_loss_param and smoothl1_param belong to two forks; only one is allowed")
        check_equal_sizes(layer, bottoms)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        sigma2 = layer.get(SmoothL1LossParameter).sigma ** 2
        turn = layer.get(SmoothL1Parameter).turn_point / sigma2
        at_turn = turn - turn * turn * sigma2 / 2

        class SmoothL1Loss(nn.Module):
            def forward(self, *bottoms: Tensor) -> Tensor:
                difference = weighted_difference(bottoms)
                errors = torch.where(
                    difference.abs() < turn, difference * difference * (sigma2 / 2), difference.abs() - at_turn
                )
                if len(bottoms) == 4:
                    errors = errors * bottoms[3].detach().reshape(difference.shape)
                return errors.sum() / difference.shape[0]

        return SmoothL1Loss()

    examples = (
        Example("plain", ((2, 4), (2, 4))),
        Example("both sides of the turn", ((1, 6), (1, 6)), draws=(literal([0, 0.5, 1, -1, 3, -3]), literal([0] * 6))),
    )
