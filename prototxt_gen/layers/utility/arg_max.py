"""ArgMax: where the largest values are, and what they are."""

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
"""As the end of an ONNX Slice with step -1: through to the first element."""


class ArgMaxParameter(Message, field="argmax_param", number=103):
    out_max_val = boolean(1)
    top_k = uint32(2, 1)
    axis = int32(3)


def searched_axis(layer: Layer, bottom: Shape) -> int | None:
    """Return the axis searched along, or None where all but the first are searched as one."""
    p = layer.get(ArgMaxParameter)
    return canonical_axis(layer, p.axis, bottom) if p.has("axis") else None


class ArgMax(LayerType):
    """The positions of the top_k largest values, as floats: along an axis, or within each image.

    Source: src/caffe/layers/argmax_layer.cpp ArgMaxLayer::Reshape, Forward_cpu.
    Shape: with axis, the bottom's with top_k along it; without, N×1×top_k×1…, of three axes or as many as the bottom.
    Blobs: none.
    Differs: of equal values Caffe takes the last first; PyTorch's topk takes any, ONNX's the first. out_max_val gives
    with axis the values alone, without axis both: N×2×top_k, positions then values. There is no gradient.
    NaN is the greatest in PyTorch; where Caffe puts it is left to the C++ library, and ONNX leaves it open.
    """

    type = "ArgMax"
    params = (ArgMaxParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        refuse_wrong_in_place(layer)
        p, bottom = layer.get(ArgMaxParameter), bottoms[0]
        if not bottom:
            raise layer.error("its bottom is a scalar; there is nothing to search")
        axis = searched_axis(layer, bottom)
        size = math.prod(bottom[1:]) if axis is None else bottom[axis]
        if not 1 <= p.top_k <= size:
            raise layer.error(f"top_k must be from 1 to {size} for its bottom {show(bottom)}, not {p.top_k}")
        if axis is None:
            return [(bottom[0], 2 if p.out_max_val else 1, p.top_k, *[1] * (len(bottom) - 3))]
        return [(*bottom[:axis], p.top_k, *bottom[axis + 1 :])]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        p = layer.get(ArgMaxParameter)
        axis = searched_axis(layer, bottoms[0])
        if axis is None:
            return _module_of_images(p.top_k, p.out_max_val, len(bottoms[0]))
        return _module_along(axis, p.top_k, p.out_max_val)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, shape = layer.get(ArgMaxParameter), g.shape(bottoms[0])
        axis = searched_axis(layer, shape)
        if axis is not None:
            return _onnx_largest(g, bottoms[0], axis, p.top_k)[0 if p.out_max_val else 1]
        values, positions = _onnx_largest(g, g.op("Flatten", bottoms[0], axis=1), 1, p.top_k)
        found = g.op("Concat", positions, values, axis=1) if p.out_max_val else positions
        target = [0, 2 if p.out_max_val else 1, p.top_k, *[1] * (len(shape) - 3)]
        return g.op("Reshape", found, g.const(target, "shape"))

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
    """Write the values and positions of the largest, searching from the end: ONNX takes the first of equals."""
    end = [g.const([at], name) for at, name in ((-1, "start"), (_LOWEST, "end"), (axis, "axis"), (-1, "step"))]
    backwards = g.op("Slice", bottom, *end)
    values, found = g.ops("TopK", backwards, g.const([top_k], "top_k"), outputs=2, axis=axis)
    last = g.op("Sub", g.op("Shape", bottom, start=axis, end=axis + 1), g.const([1], "one"))
    return values, g.op("Cast", g.op("Sub", last, found), to=1)


def _largest(bottom: Tensor, axis: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Return the values and positions of the largest along an axis, the last of equals first."""
    values, found = bottom.flip(axis).sort(dim=axis, descending=True, stable=True)
    positions = bottom.shape[axis] - 1 - found.narrow(axis, 0, top_k)
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
            found = torch.stack((positions, values), 1) if out_max_val else positions.unsqueeze(1)
            return found.reshape(*found.shape, *[1] * (rank - 3))

    return LargestOfImages()
