"""Layer type Slice: a blob cut along an axis; the inverse of Concat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import axis_or_alias
from prototxt_gen.layers.base import Arity, LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, int32, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class SliceParameter(Message, field="slice_param", number=126):
    axis = int32(3, 1)
    slice_point = repeated(uint32(2))
    slice_dim = uint32(1, 1)


def slice_axis(layer: Layer, bottom: Shape) -> int:
    """Return the axis along which the bottom is cut."""
    p = layer.get(SliceParameter)
    new, old = (getattr(p, name) if p.has(name) else None for name in ("axis", "slice_dim"))
    return axis_or_alias(layer, new, old, "slice_dim", bottom)


def slice_sizes(layer: Layer, bottom: Shape) -> list[int]:
    """Return the size of each top along the axis. Raises NetError if the slice points do not fit.

    Source: src/caffe/layers/slice_layer.cpp SliceLayer::Reshape.
    """
    points, tops = layer.get(SliceParameter).slice_point, len(layer.tops)
    size = bottom[slice_axis(layer, bottom)]
    if not points:
        if size % tops:
            raise layer.error(f"the size {size} of its bottom {show(bottom)} cannot be divided among {tops} tops")
        return [size // tops] * tops
    if len(points) != tops - 1:
        raise layer.error(f"{tops} tops need {tops - 1} slice points, not {len(points)}")
    pieces = [later - point for point, later in pairwise((0, *points, size))]
    if min(pieces) < 1:  # Caffe accepts an empty last piece at first, but stops in the forward pass
        raise layer.error(f"its slice points {', '.join(map(str, points))} do not fit its bottom {show(bottom)}")
    return pieces


class Slice(LayerType):
    """Cut a blob along an axis (default: 1, the channels) at the slice points, or into equal parts if there are none.

    Source: src/caffe/layers/slice_layer.cpp SliceLayer::Reshape, Forward_cpu.
    Shape: the bottom's shape, with the size of each part along the axis.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "Slice"
    params = (SliceParameter,)
    tops = Arity(1)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        axis = slice_axis(layer, bottoms[0])
        return [(*bottoms[0][:axis], size, *bottoms[0][axis + 1 :]) for size in slice_sizes(layer, bottoms[0])]

    def shares_memory(self, layer: Layer) -> bool:
        return len(layer.tops) == 1

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        axis = slice_axis(layer, bottoms[0])
        cuts = layer.get(SliceParameter).slice_point or len(layer.tops)

        class Cut(nn.Module):
            def forward(self, bottom: Tensor) -> tuple[Tensor, ...]:
                return tuple(torch.tensor_split(bottom, cuts, dim=axis))

        return Cut()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        import numpy as np

        shape, count = g.shape(bottoms[0]), len(layer.tops)
        axis, pieces = slice_axis(layer, shape), np.asarray(slice_sizes(layer, shape), dtype=np.int64)
        if count == 1:
            return g.op("Identity", bottoms[0])
        if not layer.get(SliceParameter).slice_point:
            return g.ops("Split", bottoms[0], outputs=count, axis=axis, num_outputs=count)
        return g.ops("Split", bottoms[0], pieces, outputs=count, axis=axis)

    examples = (
        Example("even", ((2, 6, 2, 3),), tops=3),
        Example("at points", ((2, 6, 2, 3),), "slice_param { slice_point: 1 slice_point: 3 }", tops=3),
        Example("batch", ((3, 2),), "slice_param { axis: 0 slice_point: 2 }", tops=2),
        Example("batch, even", ((4, 2),), "slice_param { axis: 0 }", tops=2),
        Example("last axis", ((2, 3, 4),), "slice_param { axis: -1 slice_point: 3 }", tops=2),
        Example("slice_dim", ((2, 3, 4),), "slice_param { slice_dim: 2 }", tops=2),
        Example("one top", ((2, 3),)),
    )
