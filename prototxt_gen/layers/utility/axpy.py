"""Layer type Axpy (SE-Net): a·x + y with one number a for each channel of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly, show_all
from prototxt_gen.layers.example import Example

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Axpy(LayerType):
    """Multiply each channel of the second bottom by its number in the first bottom, and add the third bottom.

    Source: hujie-frank/SENet and happynear/caffe-windows, src/caffe/layers/axpy_layer.cpp AxpyLayer::Forward_cpu.
    Shape: a N×C or N×C×1×1, x N×C×…, y N×C×… → N×C×….
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "Axpy"
    bottoms = exactly(3)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        a, x, y = bottoms
        if len(x) < 2 or a[:2] != x[:2] or set(a[2:]) - {1} or x != y:
            raise layer.error(f"bottoms are {show_all(bottoms)}; it needs NxC or NxCx1x1, and twice the same NxCx…")
        return [x]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        class AxPlusY(nn.Module):
            def forward(self, a: Tensor, x: Tensor, y: Tensor) -> Tensor:
                return a.reshape(*x.shape[:2], *[1] * (x.dim() - 2)) * x + y

        return AxPlusY()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        a, x, y = bottoms
        rank = len(g.shape(x))
        if len(g.shape(a)) != rank:
            a = g.op("Reshape", a, g.const([0, 0, *[1] * (rank - 2)], "shape"))
        return g.op("Add", g.op("Mul", a, x), y)

    examples = (
        Example("squeezed", ((2, 3, 1, 1), (2, 3, 4, 5), (2, 3, 4, 5))),
        Example("two axes", ((2, 3), (2, 3, 4, 5), (2, 3, 4, 5))),
        Example("no spatial axes", ((2, 3), (2, 3), (2, 3))),
    )
