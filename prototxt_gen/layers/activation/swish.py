"""Layer type Swish: x times its sigmoid."""

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


class SwishParameter(Message, field="swish_param", number=147):
    beta = float32(1, 1.0)


class Swish(Neuron):
    """Compute x · sigmoid(beta · x) of each element.

    Source: src/caffe/layers/swish_layer.cpp SwishLayer::Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: torch.nn.SiLU has no beta. In ONNX it is written as Mul, Sigmoid, Mul.
    """

    type = "Swish"
    params = (SwishParameter,)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        beta = layer.get(SwishParameter).beta
        return nn.SiLU() if beta == 1 else elementwise(lambda x: x * torch.sigmoid(beta * x), f"beta={beta}")

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        beta = layer.get(SwishParameter).beta
        inner = g.op("Mul", bottoms[0], g.const(beta, "beta")) if beta != 1 else bottoms[0]
        return g.op("Mul", bottoms[0], g.op("Sigmoid", inner))

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("beta", ((2, 5),), "swish_param { beta: 1.7 }"),
        Example("beta 0", ((2, 5),), "swish_param { beta: 0 }"),
        Example("in place", ((2, 5),), in_place=True),
    )
