"""Layer type HardSwish (brocolli-caffe, synopsys-caffe): a piecewise approximation of Swish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.neuron import Neuron

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class HardSwish(Neuron):
    """Compute x · min(max(x + 3, 0), 6) / 6 of each element.

    Source: brocolli-caffe 9.0.2 src/caffe/layers/hardswish_layer.cpp, synopsys-caffe hard_swish_layer.cpp.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. One other fork computes x · min(max(0.2·x + 0.5, 0), 1) under this
        name; a prototxt does not show which one is meant.
    """

    type = "HardSwish"

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.Hardswish()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("HardSwish", bottoms[0])

    examples = (
        Example("plain", ((2, 3, 4, 4),), draws=(lambda rng, shape: rng.uniform(-5, 5, shape),), gradients=False),
        Example("in place", ((2, 5),), gradients=False, in_place=True),
    )
