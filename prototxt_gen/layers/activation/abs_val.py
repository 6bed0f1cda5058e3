"""Layer type AbsVal: the absolute value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.layers.neuron import Neuron, elementwise

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class AbsVal(Neuron):
    """Compute the absolute value of each element.

    Source: src/caffe/layers/absval_layer.cpp AbsValLayer::LayerSetUp, Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. The layer cannot work in place.
    """

    type = "AbsVal"

    def check(self, layer: Layer) -> None:
        refuse_in_place(layer)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch

        return elementwise(torch.abs, "abs(x)")

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Abs", bottoms[0])

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("one axis, zeros", ((4,),), draws=(literal([-1, 0, 2, 0]),)),
    )
