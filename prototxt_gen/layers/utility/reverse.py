"""P"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.utility._reversed_axes import ReversedAxes
from prototxt_gen.schema.message import Message, int32

if TYPE_CHECKING:
    pass


class ReverseParameter(Message, field="reverse_param", number=157):
    """Of senlinuc/caffe_ocr under number 160, which is scale_param's in yjxiong/caffe; 157 is HiSilicon's number."""

    axis = int32(1)


class Reverse(ReversedAxes):
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
