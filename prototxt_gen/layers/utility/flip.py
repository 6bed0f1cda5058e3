"""Layer type Flip (happynear/caffe-windows): mirrored images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.utility._reversed_axes import ReversedAxes
from prototxt_gen.schema.message import Message, boolean

if TYPE_CHECKING:
    pass


class FlipParameter(Message, field="flip_param", number=212):
    """The parameters of Flip in happynear/caffe-windows."""

    flip_width = boolean(1, True)
    flip_height = boolean(2)


class Flip(ReversedAxes):
    """Mirror images from left to right (default), upside down, or both.

    Source: happynear/caffe-windows src/caffe/layers/flip_layer.cpp FlipLayer::Forward_cpu.
    Shape: N×C×H×W → N×C×H×W.
    Blobs: none.
    Differs: no difference from PyTorch's flip. ONNX has no such operator; it is written as a Slice with steps of -1.
    """

    type = "Flip"
    params = (FlipParameter,)

    def axes(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        if len(bottom) > 4:
            raise layer.error(f"its bottom {show(bottom)} has more than four axes")
        p = layer.get(FlipParameter)
        flipped = [axis for axis, flip in ((2, p.flip_height), (3, p.flip_width)) if flip]
        return tuple(axis for axis in flipped if axis < len(bottom))

    examples = (
        Example("mirrored", ((2, 3, 2, 4),)),
        Example("upside down", ((2, 1, 3, 4),), "flip_param { flip_width: false flip_height: true }"),
        Example("both", ((1, 2, 3, 4),), "flip_param { flip_height: true }"),
        Example("neither", ((1, 2, 3, 4),), "flip_param { flip_width: false }"),
        Example("no width", ((2, 3, 4),)),
    )
