"""HardSigmoid, of forks."""

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
    """Of brocolli-caffe."""

    alpha = float32(1, 0.2)
    beta = float32(2, 0.5)


class SynopsysHardSigmoidParameter(
    HardSigmoidParameter, field="hard_sigmoid_param", number=258, proto="HardSigmoidParameter"
):
    """Of synopsys-caffe: the same under another name."""


class HardSigmoid(Neuron):
    """min(max(alpha · x + beta, 0), 1).

    Source: brocolli-caffe 9.0.2 src/caffe/layers/hardsigmoid_layer.cpp, synopsys-caffe hard_sigmoid_layer.cpp.
    Shape: that of its bottom.
    Blobs: none.
    Differs: from PyTorch: torch.nn.Hardsigmoid has 1/6 for alpha; from ONNX: not at all.
    """

    type = "HardSigmoid"
    params = (HardSigmoidParameter, SynopsysHardSigmoidParameter)

    def parameter(self, layer: Layer) -> HardSigmoidParameter:
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
