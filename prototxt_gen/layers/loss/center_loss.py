"""Layer type CenterLoss (face recognition): distances to the centres of the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import BlobSpec
from prototxt_gen.layers.example import Example, labels, normal
from prototxt_gen.layers.loss_base import Loss, legacy_size
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, int32, message, uint32

if TYPE_CHECKING:
    from torch import nn


class CenterLossParameter(Message, field="center_loss_param", number=2147):
    """The fork gives it the number 147, which BVLC uses for another message."""

    num_output = uint32(1)
    center_filler = message(2, FillerParameter)
    axis = int32(3, 1)


class CenterLoss(Loss):
    """Compute half the mean squared distance of each item to the learned centre of its class.

    Source: ydwen/caffe-face src/caffe/layers/center_loss_layer.cpp.
    Shape: features N×…, N labels → scalar.
    Blobs: center num_output×K, for K features of an item.
    Differs: PyTorch has no such module. The gradient of a centre is the sum of the differences of its n items divided
        by n + 1; loss_weight does not change it.
    """

    type = "CenterLoss"
    params = (CenterLossParameter,)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        p, (features, labels) = layer.get(CenterLossParameter), bottoms
        if p.num_output < 1:
            raise layer.error("num_output must be at least 1")
        if any(legacy_size(layer, labels, axis) != 1 for axis in (1, 2, 3)):
            raise layer.error(f"its second bottom is {show(labels)}; it needs one label for each item")
        if canonical_axis(layer, p.axis, features) != 1:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): axis must be 1; with another axis Caffe mixes up the items"
            )

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(CenterLossParameter)
        return {"center": BlobSpec((p.num_output, math.prod(bottoms[0][1:])), p.center_filler)}

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.loss import _center_loss_module

        return _center_loss_module.CenterLoss(layer.get(CenterLossParameter).num_output, math.prod(bottoms[0][1:]))

    examples = (
        Example("plain", ((4, 3), (4,)), "center_loss_param { num_output: 5 }", draws=(normal, labels(5))),
        Example(
            "four axes", ((3, 2, 2, 1), (3, 1, 1, 1)), "center_loss_param { num_output: 2 }", draws=(normal, labels(2))
        ),
    )
