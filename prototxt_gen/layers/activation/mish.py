"""Layer type Mish (synopsys-caffe and other forks)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.layers.neuron import Neuron

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Mish(Neuron):
    """Compute x · tanh(log(1 + exp(x))) of each element.

    Source: synopsys-caffe and troyliu0105/caffe src/caffe/layers/mish_layer.cpp MishLayer::Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. synopsys-caffe computes the gradient from the top; here it is computed
        from the bottom.
    """

    type = "Mish"

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.Mish()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Mish", bottoms[0])

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("far out", ((4,),), draws=(literal([-60, -15, 15, 60]),)),
        Example("in place", ((2, 5),), in_place=True),
    )
