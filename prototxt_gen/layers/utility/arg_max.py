"""Layer type ArgMax: indices and values of the largest elements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import canonical_axis, refuse_wrong_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.schema.message import Message, boolean, int32, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

_LOWEST = -(2**63)
"""End of an ONNX Slice with step -1 that includes the first element."""


class ArgMaxParameter(Message, field="argmax_param", number=103):
    out_max_val = boolean(1)
    top_k = uint32(2, 1)
    axis = int32(3)


def search_axis(layer: Layer, bottom: Shape) -> int | None:
    """Return the axis along which to search, or None if each image is searched as a whole."""
    p = layer.get(ArgMaxParameter)
    return canonical_axis(layer, p.axis, bottom) if p.has("axis") else None


class ArgMax(LayerType):
    """Return the indices of the top_k largest elements as floats, along an axis or within each image.

    Source: src/caffe/layers/argmax_layer.cpp ArgMaxLayer::Reshape, Forward_cpu.
    Shape: with axis, the bottom's shape with top_k along that axis; without axis, N×1×top_k, or N×2×top_k with
        out_max_val; axes of size 1 are appended up to the bottom's number of axes.
    Blobs: none.
    Differs: of equal values Caffe returns the last one first; PyTorch's topk returns any, ONNX's TopK the first. With
        axis, out_max_val returns the values only; without axis, the indices and then the values. There is no gradient.
        NaN is the greatest value in PyTorch; in Caffe its position depends on the C++ library, and in ONNX it is
        undefined.
    """

    type = "ArgMax"
    params = (ArgMaxParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        refuse_wrong_in_place(layer)
        p, bottom = layer.get(ArgMaxParameter), bottoms[0]
        if not bottom:
            raise layer.error("its bottom is a scalar; it needs at least one axis")
        axis = search_axis(layer, bottom)
        size = math.prod(bottom[1:]) if axis is None else bottom[axis]
        if not 1 <= p.top_k <= size:
            raise layer.error(f"top_k must be from 1 to {size} for its bottom {show(bottom)}, not {p.top_k}")
        if axis is None:
            return [(bottom[0], 2 if p.out_max_val else 1, p.top_k, *[1] * (len(bottom) - 3))]
        return [(*bottom[:axis], p.top_k, *bottom[axis + 1 :])]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        p = layer.get(ArgMaxParameter)
        axis = search_axis(layer, bottoms[0])
        if axis is None:
            return _module_of_images(p.top_k, p.out_max_val, len(bottoms[0]))
        return _module_along(axis, p.top_k, p.out_max_val)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, shape = layer.get(ArgMaxParameter), g.shape(bottoms[0])
        axis = search_axis(layer, shape)
        if axis is not None:
            return _onnx_largest(g, bottoms[0], axis, p.top_k)[0 if p.out_max_val else 1]
        values, positions = _onnx_largest(g, g.op("Flatten", bottoms[0], axis=1), 1, p.top_k)
        top = g.op("Concat", positions, values, axis=1) if p.out_max_val else positions
        target = [0, 2 if p.out_max_val else 1, p.top_k, *[1] * (len(shape) - 3)]
        return g.op("Reshape", top, g.const(target, "shape"))

    examples = (
        Example("images", ((2, 3, 2, 2),), gradients=False),
        Example("classes", ((3, 5),), gradients=False),
        Example("top 3 of images", ((2, 7),), "argmax_param { top_k: 3 }", gradients=False),
        Example("values too", ((2, 3, 2, 2),), "argmax_param { top_k: 2 out_max_val: true }", gradients=False),
        Example("five axes", ((2, 3, 2, 1, 2),), "argmax_param { top_k: 2 }", gradients=False),
        Example("axis", ((2, 5, 3),), "argmax_param { axis: 1 }", gradients=False),
        Example("axis, top 2", ((2, 5, 3),), "argmax_param { axis: -2 top_k: 2 }", gradients=False),
        Example("axis, values", ((2, 5, 3),), "argmax_param { axis: 1 out_max_val: true }", gradients=False),
        Example(
            "equal values",
            ((2, 5),),
            "argmax_param { top_k: 3 }",
            draws=(literal([1, 2, 2, 0, 2, 3, 3, 3, 3, 3]),),
            gradients=False,
        ),
        Example(
            "equal values along an axis",
            ((5, 2),),
            "argmax_param { axis: 0 }",
            draws=(literal([1, 2, 2, 0, 2, 3, 0, 3, 0, 3]),),
            gradients=False,
        ),
    )


def _onnx_largest(g: OnnxGraph, bottom: str, axis: int, top_k: int) -> tuple[str, str]:
    """Write the values and indices of the largest elements along an axis.

    The axis is reversed first: ONNX returns the first of equal values, Caffe the last.
    """
    end = [g.const([at], name) for at, name in ((-1, "start"), (_LOWEST, "end"), (axis, "axis"), (-1, "step"))]
    backwards = g.op("Slice", bottom, *end)
    values, from_end = g.ops("TopK", backwards, g.const([top_k], "top_k"), outputs=2, axis=axis)
    last = g.op("Sub", g.op("Shape", bottom, start=axis, end=axis + 1), g.const([1], "one"))
    return values, g.op("Cast", g.op("Sub", last, from_end), to=1)


def _largest(bottom: Tensor, axis: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the values and indices of the largest elements along an axis, the last of equal ones first."""
    values, from_end = bottom.flip(axis).sort(dim=axis, descending=True, stable=True)
    positions = bottom.shape[axis] - 1 - from_end.narrow(axis, 0, top_k)
    return values.narrow(axis, 0, top_k), positions.to(bottom.dtype)


def _module_along(axis: int, top_k: int, out_max_val: bool) -> nn.Module:
    from torch import nn

    class Largest(nn.Module):
        def forward(self, bottom: Tensor) -> Tensor:
            return _largest(bottom, axis, top_k)[0 if out_max_val else 1]

    return Largest()


def _module_of_images(top_k: int, out_max_val: bool, rank: int) -> nn.Module:
    import torch
    from torch import nn

    class LargestOfImages(nn.Module):
        def forward(self, bottom: Tensor) -> Tensor:
            values, positions = _largest(bottom.reshape(bottom.shape[0], -1), 1, top_k)
            top = torch.stack((positions, values), 1) if out_max_val else positions.unsqueeze(1)
            return top.reshape(*top.shape, *[1] * (rank - 3))

    return LargestOfImages()
