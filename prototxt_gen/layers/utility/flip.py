"""Flip (happynear) and Reverse (the OCR forks): a blob from back to front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, boolean, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

_LOWEST = -(2**63)
"""As the end of an ONNX Slice with step -1: through to the first element."""


class FlipParameter(Message, field="flip_param", number=212):
    """Of happynear/caffe-windows."""

    flip_width = boolean(1, True)
    flip_height = boolean(2)


class ReverseParameter(Message, field="reverse_param", number=157):
    """Of senlinuc/caffe_ocr under number 160, which is scale_param's in yjxiong/caffe; 157 is HiSilicon's number."""

    axis = int32(1)


class _Backwards(LayerType):
    """What both share once the axes are known."""

    def axes(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        """Return the axes that are turned around."""
        raise NotImplementedError

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        self.axes(layer, bottoms[0])
        return [bottoms[0]]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        axes = self.axes(layer, bottoms[0])

        class Flipped(nn.Module):
            def forward(self, bottom: Tensor) -> Tensor:
                return bottom.flip(axes)

        return Flipped()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        axes = self.axes(layer, g.shape(bottoms[0]))
        if not axes:
            return g.op("Identity", bottoms[0])
        starts, ends = g.const([-1] * len(axes), "starts"), g.const([_LOWEST] * len(axes), "ends")
        return g.op("Slice", bottoms[0], starts, ends, g.const(axes, "axes"), g.const([-1] * len(axes), "steps"))


class Flip(_Backwards):
    """Images mirrored: left to right (by default), upside down, or both.

    Source: happynear/caffe-windows src/caffe/layers/flip_layer.cpp FlipLayer::Forward_cpu.
    Shape: N×C×H×W → the same.
    Blobs: none.
    Differs: from PyTorch's flip: not at all. ONNX has it as a Slice with steps of -1.
    """

    type = "Flip"
    params = (FlipParameter,)

    def axes(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        if len(bottom) > 4:
            raise layer.error(f"its bottom {show(bottom)} has more than four axes")
        p = layer.get(FlipParameter)
        wanted = [axis for axis, flip in ((2, p.flip_height), (3, p.flip_width)) if flip]
        return tuple(axis for axis in wanted if axis < len(bottom))

    examples = (
        Example("mirrored", ((2, 3, 2, 4),)),
        Example("upside down", ((2, 1, 3, 4),), "flip_param { flip_width: false flip_height: true }"),
        Example("both", ((1, 2, 3, 4),), "flip_param { flip_height: true }"),
        Example("neither", ((1, 2, 3, 4),), "flip_param { flip_width: false }"),
        Example("no width", ((2, 3, 4),)),
    )


class Reverse(_Backwards):
    """The bottom from back to front along an axis, by default the first: time, for recurrent layers.

    Source: senlinuc/caffe_ocr src/caffe/layers/reverse_layer.cpp ReverseLayer::LayerSetUp, Forward_cpu.
    Shape: the bottom's.
    Blobs: none.
    Differs: from PyTorch's flip: not at all. ONNX has it as a Slice with a step of -1.
    """

    type = "Reverse"
    params = (ReverseParameter,)

    def axes(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        refuse_in_place(layer)
        axis = layer.get(ReverseParameter).axis
        if not 0 <= axis < len(bottom):
            raise layer.error(f"axis {axis} is not an axis of its bottom {show(bottom)}; negative ones are not taken")
        return (axis,)

    examples = (
        Example("time", ((4, 2, 3),)),
        Example("another axis", ((2, 3, 4),), "reverse_param { axis: 2 }"),
    )
