"""Layer type CropCenter (waifu2x): the same margin cut from both ends of an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class CropCenterParameter(Message, field="crop_center_param", number=149):
    """The numbers are those in the .caffemodel files of waifu2x."""

    crop_size = repeated(uint32(2))


def margins(layer: Layer, bottom: Shape) -> tuple[int, ...]:
    """Return the number of elements cut from each end of each axis.

    Raises UnsupportedError if crop_size is not given for every axis.
    """
    sizes = layer.get(CropCenterParameter).crop_size
    if len(sizes) != len(bottom):
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): it has {len(sizes)} crop_size; only one for each of the "
            f"{len(bottom)} axes is supported"
        )
    return sizes


class CropCenter(LayerType):
    """Cut `crop_size` elements from the beginning and from the end of each axis.

    Source: known from the nets of waifu2x, where it crops a residual branch to the size after two 3×3 convolutions.
    Shape: in → in - 2·crop_size on each axis.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "CropCenter"
    params = (CropCenterParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,) = bottoms
        top = tuple(size - 2 * cut for size, cut in zip(bottom, margins(layer, bottom), strict=True))
        if any(size < 1 for size in top):
            raise layer.error(f"nothing would be left of its bottom {show(bottom)}")
        return [top]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        margin = margins(layer, bottoms[0])

        class CropCentre(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                for axis, size in enumerate(margin):
                    x = x.narrow(axis, size, x.shape[axis] - 2 * size)
                return x

        return CropCentre()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        axes = [(axis, cut) for axis, cut in enumerate(margins(layer, g.shape(bottoms[0]))) if cut]
        if not axes:
            return g.op("Identity", bottoms[0])
        starts, ends = [cut for _, cut in axes], [-cut for _, cut in axes]
        return g.op("Slice", bottoms[0], g.const(starts), g.const(ends), g.const([axis for axis, _ in axes]))

    examples = (
        Example(
            "waifu2x", ((2, 3, 8, 7),), "crop_center_param { crop_size: 0 crop_size: 0 crop_size: 2 crop_size: 2 }"
        ),
        Example("channels", ((2, 5, 4),), "crop_center_param { crop_size: 0 crop_size: 1 crop_size: 0 }"),
        Example("nothing", ((2, 3),), "crop_center_param { crop_size: 0 crop_size: 0 }"),
    )
