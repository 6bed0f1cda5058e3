"""Clip."""

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
    """max(min, min(x, max)).

    Source: src/caffe/layers/clip_layer.cpp ClipLayer::Forward_cpu, Backward_cpu.
    Shape: that of its bottom.
    Blobs: none.
    Differs: from PyTorch: torch.nn.Hardtanh has no gradient at the bounds themselves, Clip has one. From ONNX: where
    min is above max, Caffe gives min, ONNX max; it is written so that it gives min. In place, Caffe's gradient
    takes the clipped top for the bottom and so passes everywhere; this does not.
    """

    type = "Clip"
    params = (ClipParameter,)

    def check(self, layer: Layer) -> None:
        p = layer.get(ClipParameter)
        if not (p.has("min") and p.has("max")):
            raise layer.error("it needs clip_param with both min and max")

    def bounds(self, layer: Layer) -> tuple[float, float]:
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
