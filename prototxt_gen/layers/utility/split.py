"""Layer type Split: one blob copied to several tops. Caffe inserts it into nets itself; prototxts rarely contain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import Arity, LayerType
from prototxt_gen.layers.example import Example

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Split(LayerType):
    """Return the bottom as each of several tops; their gradients are added.

    Source: src/caffe/layers/split_layer.cpp SplitLayer::Reshape, Backward_cpu.
    Shape: each top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX, where a value may be used several times.
    """

    type = "Split"
    tops = Arity(1)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        refuse_in_place(layer)
        return [bottoms[0]] * len(layer.tops)

    def shares_memory(self, layer: Layer) -> bool:
        return True

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        tops = len(layer.tops)

        class Copies(nn.Module):
            def forward(self, bottom: Tensor) -> tuple[Tensor, ...]:
                return (bottom,) * tops

        return Copies()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return [g.op("Identity", bottoms[0]) for _ in layer.tops]

    examples = (Example("three tops", ((2, 3, 2),), tops=3), Example("one top", ((2, 3),)))
