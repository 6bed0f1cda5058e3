"""Layer type Exp: a power of a base."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.neuron import Neuron, elementwise
from prototxt_gen.schema.message import Message, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ExpParameter(Message, field="exp_param", number=111):
    base = float32(1, -1.0)
    scale = float32(2, 1.0)
    shift = float32(3)


def log_of_base(layer: Layer, base: float) -> float:
    """Return the natural logarithm of a base, where -1 stands for e. Raises NetError if the base is not positive.

    Source: exp_layer.cpp, log_layer.cpp LayerSetUp.
    """
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise layer.error(f"base is {base:g}; it must be positive, or -1 for e")
    return math.log(base)


class Exp(Neuron):
    """Compute base ^ (shift + scale · x) of each element; base -1 stands for e.

    Source: src/caffe/layers/exp_layer.cpp ExpLayer::LayerSetUp, Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator; it is computed as in Caffe, exp(log(base) · scale · x) · base ^
        shift.
    """

    type = "Exp"
    params = (ExpParameter,)

    def check(self, layer: Layer) -> None:
        self.scales(layer)

    def scales(self, layer: Layer) -> tuple[float, float]:
        """Return (inner, outer) of the equivalent form exp(inner · x) · outer."""
        p = layer.get(ExpParameter)
        log_base = log_of_base(layer, p.base)
        try:
            return log_base * p.scale, math.exp(log_base * p.shift)
        except OverflowError:
            return log_base * p.scale, math.inf

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch

        inner, outer = self.scales(layer)
        return elementwise(lambda x: torch.exp(inner * x) * outer, f"exp({inner:g}·x)·{outer:g}")

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        inner, outer = self.scales(layer)
        top = g.op("Mul", bottoms[0], g.const(inner, "scale")) if inner != 1 else bottoms[0]
        top = g.op("Exp", top)
        return g.op("Mul", top, g.const(outer, "scale")) if outer != 1 else top

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("scale, shift", ((2, 5),), "exp_param { scale: -0.5 shift: 1.5 }"),
        Example("base 2", ((2, 5),), "exp_param { base: 2 }"),
        Example("base 10, scale, shift", ((2, 5),), "exp_param { base: 10 scale: 0.3 shift: -0.2 }"),
        Example("base below 1", ((2, 5),), "exp_param { base: 0.5 shift: 1 }"),
        Example("base 1", ((2, 5),), "exp_param { base: 1 }"),
        Example("in place", ((2, 5),), in_place=True),
    )
