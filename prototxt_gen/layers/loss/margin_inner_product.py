"""Layer type MarginInnerProduct (SphereFace): an inner product with an angular margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import BlobSpec, LayerType, exactly, show_all
from prototxt_gen.layers.example import Example, labels, normal
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, enum, float32, int32, message, uint32

if TYPE_CHECKING:
    from torch import nn


class MarginInnerProductParameter(Message, field="margin_inner_product_param", number=3147):
    """The fork gives it the number 147, which BVLC uses for another message."""

    num_output = uint32(1)
    type = enum(2, "SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE")
    weight_filler = message(3, FillerParameter)
    axis = int32(4, 1)
    base = float32(5, 1.0)
    gamma = float32(6)
    power = float32(7, 1.0)
    iteration = int32(8)
    lambda_min = float32(9)


class MarginInnerProduct(LayerType):
    """Multiply by weights of length 1, with the angle of the label's class multiplied by a margin (SphereFace).

    The result is blended with λ times the plain products: (margin + λ·plain) / (1 + λ). λ decays from iteration to
    iteration.

    Source: wy1iu/sphereface tools/caffe-sphereface/src/caffe/layers/margin_inner_product_layer.cpp.
    Shape: features a×…×K, a×… labels → a×…×num_output, where one axis replaces the axes from `axis` on; 1 element, λ.
    Blobs: weight num_output×K.
    Differs: PyTorch has no such module. Every forward pass, in the TEST phase too, normalises the weight blob itself
        and reduces λ. The gradient of the label's product has normalised coefficients, and the gradient of the weight
        ignores the margin. A single top is refused, because Caffe then writes to a second top that does not exist.
    """

    type = "MarginInnerProduct"
    params = (MarginInnerProductParameter,)
    bottoms = exactly(2)
    tops = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p, (features, labels) = layer.get(MarginInnerProductParameter), bottoms
        if p.num_output < 1:
            raise layer.error("num_output must be at least 1")
        axis = canonical_axis(layer, p.axis, features)
        if math.prod(labels) != math.prod(features[:axis]) or not labels or labels[0] != features[0]:
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; it needs a label for each item")
        if axis == 0:
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): axis 0 would make the batch a single item")
        return [(*features[:axis], p.num_output), (1,)]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(MarginInnerProductParameter)
        inputs = math.prod(bottoms[0][canonical_axis(layer, p.axis, bottoms[0]) :])
        return {"weight": BlobSpec((p.num_output, inputs), p.weight_filler)}

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        axis = canonical_axis(layer, layer.get(MarginInnerProductParameter).axis, bottoms[0])
        return math.prod(tops[0]) * math.prod(bottoms[0][axis:])

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.loss import _margin_inner_product_module

        p = layer.get(MarginInnerProductParameter)
        axis = canonical_axis(layer, p.axis, bottoms[0])
        shape = (p.num_output, math.prod(bottoms[0][axis:]))
        return _margin_inner_product_module.MarginInnerProduct(
            shape, axis, p.type, (p.base, p.gamma, p.power, p.lambda_min), p.iteration
        )

    examples = (
        Example(
            "four times the angle",
            ((4, 3), (4,)),
            "margin_inner_product_param { num_output: 5 type: QUADRUPLE base: 10 gamma: 0.5 }",
            2,
            draws=(normal, labels(5)),
        ),
        Example(
            "twice, an image",
            ((2, 3, 2, 1), (2,)),
            "margin_inner_product_param { num_output: 4 type: DOUBLE }",
            2,
            draws=(normal, labels(4)),
        ),
        Example(
            "three times",
            ((3, 4), (3, 1)),
            "margin_inner_product_param { num_output: 3 type: TRIPLE lambda_min: 2 iteration: 7 gamma: 1 }",
            2,
            draws=(normal, labels(3)),
        ),
        Example("plain", ((3, 4), (3,)), "margin_inner_product_param { num_output: 2 }", 2, draws=(normal, labels(2))),
    )
