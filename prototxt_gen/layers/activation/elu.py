"""Layer type ELU: exponential linear unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.neuron import Neuron
from prototxt_gen.schema.message import Message, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ELUParameter(Message, field="elu_param", number=140):
    alpha = float32(1, 1.0)


class ELU(Neuron):
    """Compute x if x is positive, else alpha · (exp(x) - 1).

    Source: src/caffe/layers/elu_layer.cpp ELULayer::Forward_cpu, Backward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "ELU"
    params = (ELUParameter,)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.ELU(layer.get(ELUParameter).alpha)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Elu", bottoms[0], alpha=layer.get(ELUParameter).alpha)

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("alpha", ((2, 5),), "elu_param { alpha: 0.3 }"),
        Example("in place", ((2, 3, 4),), in_place=True),
    )
