"""Layer type BNLL: binomial normal log likelihood, log(1 + exp(x))."""

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


class BNLL(Neuron):
    """Compute log(1 + exp(x)) of each element (softplus).

    Source: src/caffe/layers/bnll_layer.cpp BNLLLayer::Forward_cpu, Backward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: torch.nn.Softplus returns x itself above 20, which is the same number in float32. ONNX has no difference.
        In place, Caffe computes the gradient from the top instead of the bottom; here it is computed from the bottom.
    """

    type = "BNLL"

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.Softplus()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Softplus", bottoms[0])

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("far out", ((6,),), draws=(literal([-90, -20, 15, 25, 60, 90]),)),
        Example("in place", ((2, 5),), gradients=False, in_place=True),
    )
