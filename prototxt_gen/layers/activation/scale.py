"""Layer type Scale; also functions that Bias uses to broadcast a blob over some axes of the first bottom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import Arity, BlobSpec, LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, boolean, int32, message

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

ONE = FillerParameter(value=1.0)


class ScaleParameter(Message, field="scale_param", number=142):
    axis = int32(1, 1)
    num_axes = int32(2, 1)
    filler = message(3, FillerParameter)
    bias_term = boolean(4)
    bias_filler = message(5, FillerParameter)


def learned_shape(layer: Layer, axis: int, num_axes: int, bottom: Shape) -> Shape:
    """Return the shape of the learned blob: `num_axes` axes of the bottom from `axis` on; -1 means all to the end.

    Raises NetError if the bottom does not have these axes.
    """
    first = canonical_axis(layer, axis, bottom)
    if num_axes < -1:
        raise layer.error(f"num_axes is {num_axes}; it must be 0 or more, or -1 for all axes to the end")
    if first + num_axes > len(bottom):
        raise layer.error(f"its bottom {show(bottom)} does not have {num_axes} axes from axis {axis} on")
    return bottom[first:] if num_axes == -1 else bottom[first : first + num_axes]


def trailing_axes(layer: Layer, axis: int, bottom: Shape, covered: Shape) -> int:
    """Return the number of axes of the bottom that follow those covered by a blob of shape `covered`.

    Raises NetError, as Caffe's Reshape does, if the sizes differ.
    """
    if not covered:
        return 0
    first = canonical_axis(layer, axis, bottom)
    if bottom[first : first + len(covered)] != covered:
        raise layer.error(f"bottoms differ, {show(bottom)} from axis {axis} on and {show(covered)}")
    return len(bottom) - first - len(covered)


def append_axes(array: Any, count: int) -> Any:
    """Return the array or tensor with `count` more axes of size 1 at its end, so that it broadcasts."""
    return array.reshape((*array.shape, *[1] * count))


def has_number_per_channel(axis: int, blob: np.ndarray[Any, Any]) -> bool:
    """Whether a blob holds one number for each channel (axis 1), judged without the bottom's shape."""
    return axis == 1 and blob.ndim == 1


def append_axes_onnx(g: OnnxGraph, value: str, count: int) -> str:
    """Write `append_axes` for an ONNX value."""
    rank = len(g.shape(value))
    return g.op("Unsqueeze", value, g.const(range(rank, rank + count), "axes")) if count else value


class Scale(LayerType):
    """Multiply the axes of the first bottom from `axis` on by a learned blob or the second bottom, and add a bias.

    Source: src/caffe/layers/scale_layer.cpp ScaleLayer::LayerSetUp, Reshape, Forward_cpu.
    Shape: the top has the first bottom's shape. The second bottom has the shape of the axes that it covers, or () for a
        scalar.
    Blobs: scale, with the shape of the `num_axes` axes from `axis` on, unless there is a second bottom; with bias_term
        also bias, of the same shape.
    Differs: PyTorch and ONNX have no such layer; it is written as a multiplication and an addition. If the batch has
        one image, Caffe does not sum the gradient of the scale over the batches of iter_size; see `overwritten`.
    """

    type = "Scale"
    params = (ScaleParameter,)
    bottoms = Arity(1, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        self.trailing(layer, bottoms)
        return [bottoms[0]]

    def covered_shape(self, layer: Layer, bottoms: Sequence[Shape]) -> Shape:
        """Return the shape of the scale: the axes of the first bottom that it covers."""
        p = layer.get(ScaleParameter)
        return bottoms[1] if len(bottoms) > 1 else learned_shape(layer, p.axis, p.num_axes, bottoms[0])

    def trailing(self, layer: Layer, bottoms: Sequence[Shape]) -> int:
        """Return the number of axes of the first bottom that follow the covered ones."""
        return trailing_axes(layer, layer.get(ScaleParameter).axis, bottoms[0], self.covered_shape(layer, bottoms))

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p, shape = layer.get(ScaleParameter), self.covered_shape(layer, bottoms)
        scale = {"scale": BlobSpec(shape, p.filler if p.has("filler") else ONE)} if len(bottoms) == 1 else {}
        return scale | ({"bias": BlobSpec(shape, p.bias_filler)} if p.bias_term else {})

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        trailing, shapes = self.trailing(layer, bottoms), self.blobs(layer, bottoms)

        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(shapes["scale"].shape)) if "scale" in shapes else None
                self.bias = nn.Parameter(torch.zeros(shapes["bias"].shape)) if "bias" in shapes else None

            def forward(self, bottom: Tensor, scale: Tensor | None = None) -> Tensor:
                top: Tensor = bottom * append_axes(self.scale if scale is None else scale, trailing)
                return top if self.bias is None else top + append_axes(self.bias, trailing)

        return Scaled()

    def overwritten(self, layer: Layer, bottoms: Sequence[Shape]) -> tuple[str, ...]:
        """Return ("scale",) if no axis larger than 1 comes before the covered axes, or if they are all axes.

        Source: ScaleLayer::Backward_cpu.
        """
        covered = self.covered_shape(layer, bottoms)
        before = math.prod(bottoms[0][: canonical_axis(layer, layer.get(ScaleParameter).axis, bottoms[0])])
        whole = math.prod(covered) == math.prod(bottoms[0])
        return ("scale",) if len(bottoms) == 1 and (whole or before == 1 < math.prod(covered)) else ()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        trailing = self.trailing(layer, [g.shape(bottom) for bottom in bottoms])
        scale = append_axes_onnx(g, bottoms[1], trailing) if len(bottoms) > 1 else append_axes(blobs["scale"], trailing)
        top = g.op("Mul", bottoms[0], scale)
        return g.op("Add", top, append_axes(blobs["bias"], trailing)) if "bias" in blobs else top

    def affine(
        self, layer: Layer, blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        import numpy as np

        p, scale = layer.get(ScaleParameter), blobs.get("scale")
        if scale is None or not has_number_per_channel(p.axis, scale):
            return None
        return scale, blobs.get("bias", np.zeros_like(scale))

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("bias", ((2, 3, 4, 4),), "scale_param { bias_term: true }"),
        Example("bias, in place", ((2, 3, 4),), "scale_param { bias_term: true filler { value: 2 } }", in_place=True),
        Example("two axes", ((4, 3),), "scale_param { bias_term: true }"),
        Example("several axes", ((2, 3, 4, 2),), "scale_param { axis: 1 num_axes: 2 bias_term: true }"),
        Example("all axes to the end", ((2, 3, 4),), "scale_param { num_axes: -1 bias_term: true }"),
        Example("all axes", ((2, 3, 4),), "scale_param { axis: 0 num_axes: -1 }"),
        Example("a scalar", ((2, 3, 4),), "scale_param { num_axes: 0 bias_term: true }"),
        Example("axis from the end", ((2, 3, 4),), "scale_param { axis: -1 bias_term: true }"),
        Example("axis 0", ((2, 3, 4),), "scale_param { axis: 0 }"),
        Example("two bottoms", ((2, 3, 4, 4), (3,))),
        Example("two bottoms, axis 0, bias", ((2, 3, 4, 4), (2, 3)), "scale_param { axis: 0 bias_term: true }"),
        Example("two bottoms, axis from the end", ((2, 3, 4), (3, 4)), "scale_param { axis: -2 }"),
        Example("two bottoms, a scalar", ((2, 3, 4), ()), "scale_param { bias_term: true }"),
        Example("two equal bottoms, in place", ((2, 3), (2, 3)), "scale_param { axis: 0 }", in_place=True),
    )
