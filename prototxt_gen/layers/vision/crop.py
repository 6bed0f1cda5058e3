"""Layer type Crop: a blob cut to the size of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import LayerType, exactly, show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, int32, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class CropParameter(Message, field="crop_param", number=144):
    axis = int32(1, 2)
    offset = repeated(uint32(2))


def offsets(layer: Layer, bottom: Shape) -> tuple[int, tuple[int, ...]]:
    """Return the first cropped axis, and the offset on each axis from there on.

    Raises NetError if the number of offsets is wrong. Source: src/caffe/layers/crop_layer.cpp CropLayer::LayerSetUp,
    Reshape.
    """
    p = layer.get(CropParameter)
    axis = canonical_axis(layer, p.axis, bottom)
    count = len(bottom) - axis
    if len(p.offset) > 1 and len(p.offset) != count:
        raise layer.error(f"it needs one offset, or one for each of {count} axes, not {len(p.offset)}")
    return axis, p.offset if len(p.offset) == count else (p.offset or (0,)) * count


class Crop(LayerType):
    """Cut the first bottom to the size of the second, starting at an offset.

    Source: src/caffe/layers/crop_layer.cpp CropLayer::Forward_cpu.
    Shape: the sizes of the first bottom before `axis`, those of the second bottom from there on.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. Only the shape of the second bottom is used.
    """

    type = "Crop"
    params = (CropParameter,)
    bottoms = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        data, like = bottoms
        axis, offset = offsets(layer, data)
        if len(like) < len(data):
            raise layer.error(f"bottoms are {show_all(bottoms)}; the second has too few axes")
        for i, skipped in enumerate(offset, axis):
            if data[i] - skipped < like[i]:
                raise layer.error(
                    f"bottoms are {show_all(bottoms)}; axis {i} is too short to be cut from {skipped} to "
                    f"{skipped + like[i]}"
                )
        return [(*data[:axis], *like[axis : len(data)])]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        axis, offset = offsets(layer, bottoms[0])

        class CropLike(nn.Module):
            def forward(self, x: Tensor, like: Tensor) -> Tensor:
                for i, skipped in enumerate(offset, axis):
                    x = x.narrow(i, skipped, like.shape[i])
                return x

        return CropLike()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        x, like = bottoms
        rank = len(g.shape(x))
        axis, offset = offsets(layer, g.shape(x))
        starts = g.const(offset, "offset")
        ends = g.op("Add", g.op("Shape", like, start=axis, end=rank), starts)
        return g.op("Slice", x, starts, ends, g.const(range(axis, rank), "axes"))

    examples = (
        Example("default", ((2, 3, 6, 7), (2, 5, 4, 4))),
        Example("one offset", ((1, 2, 6, 7), (1, 2, 4, 5)), "crop_param { offset: 2 }"),
        Example("an offset each", ((1, 2, 6, 7), (1, 2, 3, 5)), "crop_param { axis: 2 offset: 3 offset: 1 }"),
        Example("channels too", ((1, 5, 6, 7), (1, 2, 3, 4)), "crop_param { axis: 1 offset: 2 offset: 0 offset: 3 }"),
        Example("all axes", ((3, 4, 5), (1, 2, 3)), "crop_param { axis: 0 offset: 1 }"),
        Example("last axis", ((2, 3, 4, 7), (1, 1, 1, 5)), "crop_param { axis: -1 offset: 2 }"),
    )
