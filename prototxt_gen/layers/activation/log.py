"""Layer type Log: the logarithm to any base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.activation.exp import log_of_base
from prototxt_gen.layers.example import Example, positive
from prototxt_gen.layers.neuron import Neuron, elementwise
from prototxt_gen.schema.message import Message, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class LogParameter(Message, field="log_param", number=134):
    base = float32(1, -1.0)
    scale = float32(2, 1.0)
    shift = float32(3)


class Log(Neuron):
    """Compute the logarithm of shift + scale · x to the given base; base -1 stands for e.

    Source: src/caffe/layers/log_layer.cpp LogLayer::LayerSetUp, Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. In place, Caffe computes the gradient from the top; here it is computed
        from the bottom.
    """

    type = "Log"
    params = (LogParameter,)

    def check(self, layer: Layer) -> None:
        self.base_scale(layer)

    def base_scale(self, layer: Layer) -> float:
        """Return the factor that turns a natural logarithm into one to the layer's base."""
        log_base = log_of_base(layer, layer.get(LogParameter).base)
        if not log_base:
            raise layer.error("there is no logarithm of base 1")
        return 1 / log_base

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch

        p, outer = layer.get(LogParameter), self.base_scale(layer)
        words = f"log({p.shift:g} + {p.scale:g}·x)·{outer:g}"
        return elementwise(lambda x: torch.log(p.shift + p.scale * x) * outer, words)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, outer = layer.get(LogParameter), self.base_scale(layer)
        top = g.op("Mul", bottoms[0], g.const(p.scale, "scale")) if p.scale != 1 else bottoms[0]
        top = g.op("Add", top, g.const(p.shift, "shift")) if p.shift else top
        top = g.op("Log", top)
        return g.op("Mul", top, g.const(outer, "scale")) if outer != 1 else top

    examples = (
        Example("plain", ((2, 3, 4, 4),), draws=(positive,)),
        Example("scale, shift", ((2, 5),), "log_param { scale: 2 shift: 1 }", draws=(positive,)),
        Example("base 2", ((2, 5),), "log_param { base: 2 }", draws=(positive,)),
        Example("base 10, scale", ((2, 5),), "log_param { base: 10 scale: 3 }", draws=(positive,)),
        Example("base below 1, shift", ((2, 5),), "log_param { base: 0.5 shift: 0.25 }", draws=(positive,)),
        Example("in place", ((2, 5),), draws=(positive,), gradients=False, in_place=True),
    )
