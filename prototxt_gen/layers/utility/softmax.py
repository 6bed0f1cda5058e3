"""Layer type Softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import ENGINES
from prototxt_gen.schema.message import Message, enum, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class SoftmaxParameter(Message, field="softmax_param", number=125):
    engine = enum(1, *ENGINES)
    axis = int32(2, 1)


class Softmax(LayerType):
    """Divide the exponentials by their sum along one axis (default: 1).

    Source: src/caffe/layers/softmax_layer.cpp SoftmaxLayer::Reshape, Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX, but for the default axis.
    """

    type = "Softmax"
    params = (SoftmaxParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        self.axis(layer, bottoms[0])
        return [bottoms[0]]

    def axis(self, layer: Layer, bottom: Shape) -> int:
        """Return the axis of the sum, counted from 0."""
        return canonical_axis(layer, layer.get(SoftmaxParameter).axis, bottom)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.Softmax(dim=self.axis(layer, bottoms[0]))

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Softmax", bottoms[0], axis=self.axis(layer, g.shape(bottoms[0])))

    examples = (
        Example("channels", ((2, 5, 3, 2),)),
        Example("two axes", ((3, 7),)),
        Example("last axis", ((2, 3, 4),), "softmax_param { axis: -1 }"),
        Example("axis 2", ((2, 3, 4, 2),), "softmax_param { axis: 2 engine: CAFFE }"),
        Example("batch axis", ((4, 3),), "softmax_param { axis: 0 }"),
        Example("in place", ((2, 4),), in_place=True),
    )
