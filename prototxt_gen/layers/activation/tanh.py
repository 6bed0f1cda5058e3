"""Layer type TanH: the hyperbolic tangent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.layers.neuron import Neuron
from prototxt_gen.schema.caffe_proto import ENGINES
from prototxt_gen.schema.message import Message, enum

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class TanHParameter(Message, field="tanh_param", number=127):
    engine = enum(1, *ENGINES)


class TanH(Neuron):
    """Compute the hyperbolic tangent of each element.

    Source: src/caffe/layers/tanh_layer.cpp TanHLayer::Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "TanH"
    params = (TanHParameter,)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.Tanh()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Tanh", bottoms[0])

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("far out", ((5,),), draws=(literal([-90, -9, 0, 9, 90]),)),
        Example("in place", ((2, 5),), "tanh_param { engine: CAFFE }", in_place=True),
    )
