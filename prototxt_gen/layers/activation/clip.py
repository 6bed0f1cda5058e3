"""Layer type Clip: elements limited to a range."""

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


class ClipParameter(Message, field="clip_param", number=148):
    min = float32(1)
    max = float32(2)


class Clip(Neuron):
    """Limit each element to the range from `min` to `max`: max(min, min(x, max)).

    Source: src/caffe/layers/clip_layer.cpp ClipLayer::Forward_cpu, Backward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: torch.nn.Hardtanh has no gradient at the bounds themselves, Caffe has one. If min is greater than max,
        Caffe returns min and ONNX max; the ONNX form here returns min. In place, Caffe computes the gradient from the
        clipped top, so that nothing is blocked; here it is computed from the bottom.
    """

    type = "Clip"
    params = (ClipParameter,)

    def check(self, layer: Layer) -> None:
        p = layer.get(ClipParameter)
        if not (p.has("min") and p.has("max")):
            raise layer.error("it needs clip_param with both min and max")

    def bounds(self, layer: Layer) -> tuple[float, float]:
        """Return (min, max), with max raised to min if it is less."""
        p = layer.get(ClipParameter)
        return p.min, max(p.min, p.max)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        low, high = self.bounds(layer)
        return elementwise(lambda x: x.clamp(low, high), f"min={low}, max={high}")

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        low, high = self.bounds(layer)
        return g.op("Clip", bottoms[0], g.const(low, "min"), g.const(high, "max"))

    examples = (
        Example("plain", ((2, 3, 4, 4),), "clip_param { min: -0.5 max: 0.7 }"),
        Example("at the bounds", ((5,),), "clip_param { min: 0 max: 6 }", draws=(literal([-1, 0, 3, 6, 7]),)),
        Example("min above max", ((2, 5),), "clip_param { min: 1 max: -1 }"),
        Example("in place", ((2, 5),), "clip_param { min: -1 max: 0 }", gradients=False, in_place=True),
    )
