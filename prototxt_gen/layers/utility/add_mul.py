"""Layer types Add and Mul (synopsys-caffe): the sum and the product of two blobs with broadcasting as in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.layers.example import Example

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Broadcast(LayerType):
    """Base of both types. The forks' other form, with a learned blob instead of the second bottom, is not supported."""

    bottoms = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        refuse_in_place(layer)
        rank = max(map(len, bottoms))
        padded = [(1,) * (rank - len(bottom)) + tuple(bottom) for bottom in bottoms]
        if any(1 not in pair and pair[0] != pair[1] for pair in zip(*padded, strict=True)):
            raise layer.error(f"bottoms differ, {show(bottoms[0])} and {show(bottoms[1])}; sizes must be equal or 1")
        return [tuple(max(pair) for pair in zip(*padded, strict=True))]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        multiplies = self.type == "Mul"

        class Stretched(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return x * y if multiplies else x + y

        return Stretched()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op(self.type, *bottoms)

    examples = (
        Example("equal", ((2, 3, 4), (2, 3, 4)), gradients=False),
        Example("a number for each channel", ((2, 3, 4, 5), (2, 3, 1, 1)), gradients=False),
        Example("both stretched", ((2, 1, 4), (1, 3, 1)), gradients=False),
        Example("fewer axes", ((2, 3, 4), (4,)), gradients=False),
        Example("more axes", ((3, 1), (2, 3, 4)), gradients=False),
        Example("a scalar", ((2, 3), ()), gradients=False),
    )


class Add(Broadcast):
    """Add two blobs with broadcasting.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/add_layer.cpp.
    Shape: axes are aligned at the end; each axis has the larger of the two sizes, of which one may be 1.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. The fork has no backward pass; here there is one.
    """

    type = "Add"


class Mul(Broadcast):
    """Multiply two blobs with broadcasting.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/mul_layer.cpp.
    Shape: axes are aligned at the end; each axis has the larger of the two sizes, of which one may be 1.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. The fork has no backward pass; here there is one.
    """

    type = "Mul"
