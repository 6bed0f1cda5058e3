"""Layer type Sigmoid: the logistic function."""

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


class SigmoidParameter(Message, field="sigmoid_param", number=124):
    engine = enum(1, *ENGINES)


class Sigmoid(Neuron):
    """Compute 1 / (1 + exp(-x)) of each element.

    Source: src/caffe/layers/sigmoid_layer.cpp SigmoidLayer::Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "Sigmoid"
    params = (SigmoidParameter,)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.Sigmoid()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Sigmoid", bottoms[0])

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("far out", ((5,),), draws=(literal([-90, -9, 0, 9, 90]),)),
        Example("in place", ((2, 5),), "sigmoid_param { engine: CAFFE }", in_place=True),
    )
