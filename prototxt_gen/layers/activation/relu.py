"""ReLU, leaky or not, and the ReLU6 of the MobileNet forks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.neuron import Neuron, elementwise
from prototxt_gen.schema.caffe_proto import ENGINES
from prototxt_gen.schema.message import Message, boolean, enum, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ReLUParameter(Message, field="relu_param", number=123):
    negative_slope = float32(1)
    engine = enum(2, *ENGINES)
    relu6 = boolean(3)
    """Of foss-for-synopsys-dwc-arc-processors/synopsys-caffe: nothing above 6."""


class ReLU6Parameter(Message, field="relu6_param", number=503):
    """Of brocolli-caffe; Xilinx's has the number 100000 and no threshold."""

    negative_slope = float32(1)
    threshold = float32(2, 6.0)


def capped(slope: float, cap: float) -> nn.Module:
    """Return a module of max(x, 0) + slope·min(x, 0), but at most `cap`; there the gradient is 0, as in Caffe."""
    from torch import nn
    from torch.nn.functional import hardtanh, leaky_relu

    if (slope, cap) == (0, 6):
        return nn.ReLU6()
    words = f"negative_slope={slope}, cap={cap}"
    return elementwise(lambda x: hardtanh(leaky_relu(x, slope), float("-inf"), cap), words)


def onnx_relu(g: OnnxGraph, bottom: str, slope: float, cap: float | None = None) -> str:
    top = g.op("LeakyRelu", bottom, alpha=slope) if slope else g.op("Relu", bottom)
    return top if cap is None else g.op("Min", top, g.const(cap)) if slope else g.op("Clip", top, None, g.const(cap))


class ReLU(Neuron):
    """max(x, 0) + negative_slope · min(x, 0).

    Source: src/caffe/layers/relu_layer.cpp ReLULayer::Forward_cpu, Backward_cpu; relu6 from synopsys-caffe's.
    Shape: that of its bottom.
    Blobs: none.
    Differs: from PyTorch, ONNX: minus infinity gives 0 there; Caffe multiplies it by the slope, and 0 times it is NaN.
    """

    type = "ReLU"
    params = (ReLUParameter,)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(ReLUParameter)
        if p.relu6:
            return capped(p.negative_slope, 6.0)
        return nn.LeakyReLU(p.negative_slope) if p.negative_slope else nn.ReLU()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p = layer.get(ReLUParameter)
        return onnx_relu(g, bottoms[0], p.negative_slope, 6.0 if p.relu6 else None)

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("in place", ((2, 3, 4),), in_place=True),
        Example("leaky", ((2, 5),), "relu_param { negative_slope: 0.1 }"),
        Example("leaky, in place", ((2, 5),), "relu_param { negative_slope: 0.1 engine: CAFFE }", in_place=True),
        Example("one axis", ((7,),)),
    )


class ReLU6(Neuron):
    """max(x, 0) + negative_slope · min(x, 0), but at most the threshold, 6.

    Source: brocolli-caffe 9.0.2 src/caffe/layers/relu6_layer.cpp; chuanqi305's and others' lack the parameters.
    Shape: that of its bottom.
    Blobs: none.
    Differs: from PyTorch, ONNX: not at all.
    """

    type = "ReLU6"
    params = (ReLU6Parameter,)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        p = layer.get(ReLU6Parameter)
        return capped(p.negative_slope, p.threshold)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p = layer.get(ReLU6Parameter)
        return onnx_relu(g, bottoms[0], p.negative_slope, p.threshold)

    examples = (
        Example("plain", ((2, 3, 4),), draws=(lambda rng, shape: rng.uniform(-4, 10, shape),)),
        Example("in place", ((2, 3, 4, 2),), draws=(lambda rng, shape: rng.uniform(-4, 10, shape),), in_place=True),
        Example("leaky, lower", ((2, 9),), "relu6_param { negative_slope: 0.2 threshold: 0.5 }"),
    )
