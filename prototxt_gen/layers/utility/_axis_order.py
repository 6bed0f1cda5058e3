"""The base class of Permute and Transpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import refuse_wrong_in_place
from prototxt_gen.layers.base import LayerType

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ReorderedAxes(LayerType):
    """Base of both types: the axes are put into another order."""

    def order(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        """Return for each axis of the top the axis of the bottom that it is."""
        raise NotImplementedError

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        order = self.order(layer, bottoms[0])
        if order != tuple(range(len(order))):
            refuse_wrong_in_place(layer)
        return [tuple(bottoms[0][axis] for axis in order)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        order = self.order(layer, bottoms[0])

        class Permuted(nn.Module):
            def forward(self, bottom: Tensor) -> Tensor:
                return bottom.permute(order)

        return Permuted()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Transpose", bottoms[0], perm=self.order(layer, g.shape(bottoms[0])))
