"""Layer type ReLU6 (MobileNet forks): a ReLU with a maximum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.activation.relu import capped, onnx_relu
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.neuron import Neuron
from prototxt_gen.schema.message import Message, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ReLU6Parameter(Message, field="relu6_param", number=503):
    """The parameters of ReLU6 in brocolli-caffe. Xilinx's fork has the number 100000 and no threshold."""

    negative_slope = float32(1)
    threshold = float32(2, 6.0)


class ReLU6(Neuron):
    """Compute max(x, 0) + negative_slope · min(x, 0), but at most `threshold` (default 6).

    Source: brocolli-caffe 9.0.2 src/caffe/layers/relu6_layer.cpp. ReLU6 of chuanqi305 and other forks has no
        parameters.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "ReLU6"
    params = (ReLU6Parameter,)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        p = layer.get(ReLU6Parameter)
        return capped(p.negative_slope, p.threshold)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p = layer.get(ReLU6Parameter)
        return onnx_relu(g, bottoms[0], p.negative_slope, p.threshold)

    examples = (
        Example("plain", ((2, 3, 4),), draws=(lambda rng, shape: rng.uniform(-4, 10, shape),)),
        Example("in place", ((2, 3, 4, 2),), draws=(lambda rng, shape: rng.uniform(-4, 10, shape),), in_place=True),
        Example("leaky, lower", ((2, 9),), "relu6_param { negative_slope: 0.2 threshold: 0.5 }"),
    )
