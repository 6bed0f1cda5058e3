"""Layer type Threshold: a test against a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.layers.neuron import Neuron, elementwise
from prototxt_gen.schema.message import Message, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ThresholdParameter(Message, field="threshold_param", number=128):
    threshold = float32(1)


class Threshold(Neuron):
    """Return 1 where x is above the threshold, else 0.

    Source: src/caffe/layers/threshold_layer.cpp ThresholdLayer::Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: torch.nn.Threshold is another function. There is no gradient: Caffe's backward pass stops with an error.
    """

    type = "Threshold"
    params = (ThresholdParameter,)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        threshold = layer.get(ThresholdParameter).threshold
        return elementwise(lambda x: (x > threshold).to(x.dtype), f"x > {threshold}")

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        threshold = layer.get(ThresholdParameter).threshold
        return g.op("Cast", g.op("Greater", bottoms[0], g.const(threshold, "threshold")), to=1)

    examples = (
        Example("plain", ((2, 3, 4, 4),), gradients=False),
        Example("at it", ((4,),), "threshold_param { threshold: 2 }", draws=(literal([1, 2, 3, -2]),), gradients=False),
        Example("in place", ((2, 5),), "threshold_param { threshold: -0.5 }", gradients=False, in_place=True),
    )
