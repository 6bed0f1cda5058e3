"""Layer type HardSigmoid (brocolli-caffe, synopsys-caffe): a piecewise linear sigmoid."""

from __future__ import annotations

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


class HardSigmoidParameter(Message, field="hardsigmoid_param", number=501):
    """The parameters of HardSigmoid in brocolli-caffe."""

    alpha = float32(1, 0.2)
    beta = float32(2, 0.5)


class SynopsysHardSigmoidParameter(
    HardSigmoidParameter, field="hard_sigmoid_param", number=258, proto="HardSigmoidParameter"
):
    """The same parameters under another name, in synopsys-caffe."""


class HardSigmoid(Neuron):
    """Compute min(max(alpha · x + beta, 0), 1) of each element.

    Source: brocolli-caffe 9.0.2 src/caffe/layers/hardsigmoid_layer.cpp, synopsys-caffe hard_sigmoid_layer.cpp.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: torch.nn.Hardsigmoid has alpha = 1/6 fixed. No difference from ONNX.
    """

    type = "HardSigmoid"
    params = (HardSigmoidParameter, SynopsysHardSigmoidParameter)

    def parameter(self, layer: Layer) -> HardSigmoidParameter:
        """Return the parameters, from whichever of the two messages the layer has."""
        return layer.get(HardSigmoidParameter) or layer.get(SynopsysHardSigmoidParameter)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch.nn.functional import hardtanh

        p = self.parameter(layer)
        return elementwise(lambda x: hardtanh(p.alpha * x + p.beta, 0.0, 1.0), f"alpha={p.alpha}, beta={p.beta}")

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p = self.parameter(layer)
        return g.op("HardSigmoid", bottoms[0], alpha=p.alpha, beta=p.beta)

    examples = (
        Example("plain", ((2, 3, 4, 4),), draws=(lambda rng, shape: rng.uniform(-5, 5, shape),), gradients=False),
        Example("alpha, beta", ((2, 5),), "hardsigmoid_param { alpha: 0.5 beta: 0.3 }", gradients=False),
        Example("in place", ((2, 5),), gradients=False, in_place=True),
    )
