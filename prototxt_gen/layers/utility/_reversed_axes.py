"""The base class of Flip and Reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


_LOWEST = -(2**63)
"""End of an ONNX Slice with step -1 that includes the first element."""


class ReversedAxes(LayerType):
    """Base of both types: the order of the elements is reversed along some axes."""

    def axes(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        """Return the axes that are reversed."""
        raise NotImplementedError

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        self.axes(layer, bottoms[0])
        return [bottoms[0]]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        axes = self.axes(layer, bottoms[0])

        class Flipped(nn.Module):
            def forward(self, bottom: Tensor) -> Tensor:
                return bottom.flip(axes)

        return Flipped()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        axes = self.axes(layer, g.shape(bottoms[0]))
        if not axes:
            return g.op("Identity", bottoms[0])
        starts, ends = g.const([-1] * len(axes), "starts"), g.const([_LOWEST] * len(axes), "ends")
        return g.op("Slice", bottoms[0], starts, ends, g.const(axes, "axes"), g.const([-1] * len(axes), "steps"))
