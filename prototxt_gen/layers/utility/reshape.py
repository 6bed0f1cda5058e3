"""Layer type Reshape; also the change of axes that Flatten uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._depth_to_space_shared import depth_to_space_shape
from prototxt_gen.schema.caffe_proto import BlobShape
from prototxt_gen.schema.message import Message, int32, message

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ReshapeParameter(Message, field="reshape_param", number=133):
    shape = message(1, BlobShape)
    axis = int32(2)
    num_axes = int32(3, -1)
    pixelshuffler = int32(4, 1)
    """Field of intel/caffe and Synopsys: unless it is 1, the layer is PixelShuffle, and other fields are ignored."""


class NewAxes(NamedTuple):
    """Replacement of the axes from `start` to `end` (not included) by `dims`: 0 copies a size, -1 is inferred."""

    start: int
    end: int
    dims: tuple[int, ...]


def new_axes(layer: Layer, bottom: Shape) -> NewAxes:
    """Return the change of axes that the layer makes. Raises NetError if the parameters do not fit the bottom.

    Source: src/caffe/layers/reshape_layer.cpp ReshapeLayer::LayerSetUp, Reshape.
    """
    p, rank = layer.get(ReshapeParameter), len(bottom)
    start = p.axis if p.axis >= 0 else rank + p.axis + 1
    end = rank if p.num_axes == -1 else start + p.num_axes
    if not 0 <= start <= rank:
        raise layer.error(f"axis {p.axis} is out of range for its bottom {show(bottom)}")
    if p.num_axes < -1 or end > rank:
        raise layer.error(f"axis {p.axis} with num_axes {p.num_axes} is out of range for its bottom {show(bottom)}")
    dims = p.shape.dim
    if dims.count(-1) > 1:
        raise layer.error("its shape has more than one -1; only one size can be inferred")
    if any(dim == 0 and start + index >= rank for index, dim in enumerate(dims)):
        raise layer.error(f"its shape has a 0 where its bottom {show(bottom)} has no axis to copy")
    return NewAxes(start, end, dims)


def reshaped(bottom: Shape, new: NewAxes) -> Shape | None:
    """Return the shape after the change, or None if the number of elements does not fit."""
    dims = [bottom[new.start + i] if dim == 0 else dim for i, dim in enumerate(new.dims)]
    top = [*bottom[: new.start], *dims, *bottom[new.end :]]
    if -1 in dims:
        others = math.prod(dim for dim in top if dim != -1)
        if others <= 0 or math.prod(bottom) % others:
            return None
        top[top.index(-1)] = math.prod(bottom) // others
    return tuple(top) if math.prod(top) == math.prod(bottom) and min(top, default=0) >= 0 else None


def reshape_module(new: NewAxes) -> nn.Module:
    """Return a module that makes the change for any batch size and any sizes that fit."""
    from torch import nn

    start, end, dims = new

    class Reshaped(nn.Module):
        def forward(self, bottom: Tensor) -> Tensor:
            middle = [bottom.shape[start + i] if dim == 0 else dim for i, dim in enumerate(dims)]
            return bottom.reshape((*bottom.shape[:start], *middle, *bottom.shape[end:]))

    return Reshaped()


def reshape_onnx(g: OnnxGraph, bottom: str, new: NewAxes) -> str:
    """Write an ONNX Reshape, where 0 and -1 mean the same as in Caffe; other sizes are copied at run time."""
    import numpy as np

    start, end, dims = new
    kept = len(g.shape(bottom)) - end
    moved = kept and len(dims) != end - start
    first = np.asarray([0] * start + list(dims) + [0] * (0 if moved else kept), dtype=np.int64)
    if not moved:
        return g.op("Reshape", bottom, first)
    return g.op("Reshape", bottom, g.op("Concat", first, g.op("Shape", bottom, start=end), axis=0))


class Reshape(LayerType):
    """Change the shape of a blob: dim 0 copies the bottom's size, -1 is inferred.

    `axis` and `num_axes` select the axes that are replaced.

    Source: src/caffe/layers/reshape_layer.cpp ReshapeLayer::Reshape; for pixelshuffler that of intel/caffe and
        synopsys-caffe, Forward_cpu.
    Shape: `num_axes` axes from `axis` on (-1: all) are replaced by `shape`; axis -1 is the position after the last
        axis. With pixelshuffler b: N×C×H×W → N×C/b²×H·b×W·b.
    Blobs: none.
    Differs: in PyTorch a 0 is a size of zero. No difference from ONNX.
    """

    type = "Reshape"
    params = (ReshapeParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        refuse_in_place(layer)
        if (block := layer.get(ReshapeParameter).pixelshuffler) != 1:
            return [depth_to_space_shape(layer, bottoms[0], block)]
        top = reshaped(bottoms[0], new_axes(layer, bottoms[0]))
        if top is None:
            shape = show(layer.get(ReshapeParameter).shape.dim)
            raise layer.error(f"the elements of its bottom {show(bottoms[0])} do not fit the shape {shape}")
        return [top]

    def shares_memory(self, layer: Layer) -> bool:
        return layer.get(ReshapeParameter).pixelshuffler == 1

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        block = layer.get(ReshapeParameter).pixelshuffler
        return reshape_module(new_axes(layer, bottoms[0])) if block == 1 else nn.PixelShuffle(block)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        block = layer.get(ReshapeParameter).pixelshuffler
        if block != 1:
            return g.op("DepthToSpace", bottoms[0], blocksize=block, mode="CRD")
        return reshape_onnx(g, bottoms[0], new_axes(layer, g.shape(bottoms[0])))

    examples = (
        Example("copied and inferred", ((2, 6, 4),), "reshape_param { shape { dim: 0 dim: 3 dim: -1 } }"),
        Example("in full", ((2, 6),), "reshape_param { shape { dim: 3 dim: 2 dim: 2 } }"),
        Example("from an axis", ((2, 8),), "reshape_param { shape { dim: 2 dim: 4 } axis: 1 }"),
        Example("from the end", ((2, 8),), "reshape_param { shape { dim: 2 dim: -1 } axis: -2 }"),
        Example(
            "axes in the middle", ((2, 6, 4, 3),), "reshape_param { shape { dim: -1 dim: 3 } axis: 1 num_axes: 2 }"
        ),
        Example("an axis split", ((2, 6, 4),), "reshape_param { shape { dim: 2 dim: 3 } axis: 1 num_axes: 1 }"),
        Example("an axis added in front", ((2, 8),), "reshape_param { shape { dim: 1 } num_axes: 0 }"),
        Example("an axis added at the end", ((2, 8),), "reshape_param { shape { dim: 1 } axis: -1 }"),
        Example("one axis", ((2, 3, 4),), "reshape_param { shape { dim: -1 } }"),
        Example("no axis", ((1, 1),), "reshape_param { shape { } }"),
    )
