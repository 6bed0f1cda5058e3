"""Layer type ReLU, with or without a slope for negative values; also functions that ReLU6 uses."""

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
    """Field of foss-for-synopsys-dwc-arc-processors/synopsys-caffe: limits the top to 6."""


def capped(slope: float, cap: float) -> nn.Module:
    """Return a module that computes max(x, 0) + slope·min(x, 0), but at most `cap`.

    Its gradient is 0 from `cap` on, as in Caffe.
    """
    from torch import nn
    from torch.nn.functional import hardtanh, leaky_relu

    if (slope, cap) == (0, 6):
        return nn.ReLU6()
    words = f"negative_slope={slope}, cap={cap}"
    return elementwise(lambda x: hardtanh(leaky_relu(x, slope), float("-inf"), cap), words)


def onnx_relu(g: OnnxGraph, bottom: str, slope: float, cap: float | None = None) -> str:
    """Write a ReLU with the given slope for negative values and, unless `cap` is None, the given maximum."""
    top = g.op("LeakyRelu", bottom, alpha=slope) if slope else g.op("Relu", bottom)
    return top if cap is None else g.op("Min", top, g.const(cap)) if slope else g.op("Clip", top, None, g.const(cap))


class ReLU(Neuron):
    """Compute max(x, 0) + negative_slope · min(x, 0) of each element.

    Source: src/caffe/layers/relu_layer.cpp ReLULayer::Forward_cpu, Backward_cpu; synopsys-caffe's for relu6.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: for minus infinity PyTorch and ONNX return 0; Caffe multiplies it by the slope, and 0 times infinity is
        NaN.
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
