"""Layer type L1Loss (FlowNet 2, NVIDIA): absolute differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, show_all
from prototxt_gen.layers.example import Draw, Example, literal, normal
from prototxt_gen.layers.loss_base import Loss, legacy_size
from prototxt_gen.schema.message import Message, boolean, float32

if TYPE_CHECKING:
    from torch import Tensor, nn


class L1LossParameter(Message, field="l1_loss_param", number=151):
    """The parameters of L1Loss in FlowNet 2."""

    l2_per_location = boolean(1)
    l2_prescale_by_channels = boolean(2)
    normalize_by_num_entries = boolean(3)
    epsilon = float32(4, 1e-2)
    plateau = float32(3001)


_TARGET_WITH_NAN: Draw = literal([0, 1, float("nan"), 2, 0.5, float("nan"), 1, 1])


class L1Loss(Loss):
    """Sum the absolute differences, or with l2_per_location the Euclidean length of the difference at each pixel.

    Source: lmb-freiburg/flownet2 src/caffe/layers/l1loss_layer.cu; NVIDIA/caffe l1_loss_layer.cpp (no parameters).
    Shape: N×C×H×W, optionally a target of the same shape → scalar.
    Blobs: none.
    Differs: torch.nn.L1Loss divides by the number of elements. NaN elements are not counted. The gradient at a
        difference of exactly 0 is -1, as in FlowNet 2; in NVIDIA's fork it is 0.
    """

    type = "L1Loss"
    params = (L1LossParameter,)
    bottoms = Arity(1, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(set(bottoms)) > 1:
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; it needs equal shapes")
        legacy_size(layer, bottoms[0], 0)
        return [()][: len(layer.tops)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(L1LossParameter)

        class L1Loss(nn.Module):
            def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
                difference = x if target is None else x - target
                is_number = difference == difference
                count = is_number.sum() / difference.shape[1] if p.normalize_by_num_entries else len(difference)
                difference = difference.where(is_number, difference.new_zeros(()))
                return (
                    _lengths(p, difference) if p.l2_per_location else _absolute(p, difference, is_number)
                ).sum() / count

        return L1Loss()

    examples = (
        Example("plain", ((2, 3, 2, 2), (2, 3, 2, 2))),
        Example("one bottom", ((2, 3),)),
        Example("lengths", ((2, 2, 3, 1), (2, 2, 3, 1)), "l1_loss_param { l2_per_location: true }"),
        Example(
            "holes in the target, plateau",
            ((1, 2, 2, 2), (1, 2, 2, 2)),
            "l1_loss_param { l2_per_location: true l2_prescale_by_channels: true normalize_by_num_entries: true "
            "plateau: 0.9 }",
            draws=(normal, _TARGET_WITH_NAN),
        ),
        Example("plateau", ((2, 4), (2, 4)), "l1_loss_param { plateau: 0.5 }", draws=(normal, _TARGET_WITH_NAN)),
    )


def _absolute(p: L1LossParameter, difference: Tensor, is_number: Tensor) -> Tensor:
    """Return |difference|, but 0 if it is less than `plateau`; its gradient at 0 is Caffe's."""
    is_number = is_number & (difference.detach().abs() >= p.plateau)
    sign = (difference.detach() > 0).to(difference.dtype) * 2 - 1
    return difference * (sign * is_number)


def _lengths(p: L1LossParameter, difference: Tensor) -> Tensor:
    """Return the length of each position's vector over axis 1; below `plateau` it is √epsilon, without gradient."""
    squares = difference.square().sum(1) / (difference.shape[1] if p.l2_prescale_by_channels else 1)
    squares = squares.where(squares.detach() >= p.plateau**2, squares.new_zeros(()))
    return (squares + p.epsilon).sqrt()
