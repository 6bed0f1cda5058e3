"""Layer type Squeeze (synopsys-caffe): axes of size 1 removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import canonical_axis, refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, int32, repeated

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class SqueezeParameter(Message, field="squeeze_param", number=241):
    axis = repeated(int32(1))


class Squeeze(LayerType):
    """Remove the axes of size 1 that `axis` lists, or all of them.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/squeeze_layer.cpp.
    Shape: the bottom's shape without these axes.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "Squeeze"
    params = (SqueezeParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,) = bottoms
        refuse_in_place(layer)
        axes = self._axes(layer, bottom)
        if any(bottom[axis] != 1 for axis in axes):
            raise layer.error(f"an axis to remove does not have size 1 in its bottom {show(bottom)}")
        return [tuple(size for axis, size in enumerate(bottom) if axis not in axes and (axes or size != 1))]

    def _axes(self, layer: Layer, bottom: Shape) -> list[int]:
        return [canonical_axis(layer, axis, bottom) for axis in layer.get(SqueezeParameter).axis]

    def shares_memory(self, layer: Layer) -> bool:
        return True

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        axes = tuple(self._axes(layer, bottoms[0]))

        class Squeezed(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.squeeze(axes) if axes else x.squeeze()

        return Squeezed()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        shape = g.shape(bottoms[0])
        axes = self._axes(layer, shape) or [axis for axis, size in enumerate(shape) if size == 1]
        return g.op("Squeeze", bottoms[0], g.const(axes, "axes")) if axes else g.op("Identity", bottoms[0])

    examples = (
        Example("the plane", ((2, 3, 1, 1),), "squeeze_param { axis: 2 axis: -1 }", gradients=False),
        Example("all", ((1, 3, 1, 2),), gradients=False),
        Example("one of two", ((1, 3, 1, 2),), "squeeze_param { axis: 2 }", gradients=False),
    )
