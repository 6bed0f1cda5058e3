"""Layer type Reverse (OCR forks): an axis in reverse order."""

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
    """The parameters of Reverse in senlinuc/caffe_ocr.

    The number there is 160, which is scale_param's in yjxiong/caffe; 157 is HiSilicon's number.
    """

    axis = int32(1)


class Reverse(ReversedAxes):
    """Reverse the order of the elements along an axis (default: the first, which is time for recurrent layers).

    Source: senlinuc/caffe_ocr src/caffe/layers/reverse_layer.cpp ReverseLayer::LayerSetUp, Forward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch's flip. ONNX has no such operator; it is written as a Slice with a step of -1.
    """

    type = "Reverse"
    params = (ReverseParameter,)

    def axes(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        refuse_in_place(layer)
        axis = layer.get(ReverseParameter).axis
        if not 0 <= axis < len(bottom):
            raise layer.error(f"axis {axis} is not an axis of its bottom {show(bottom)}; it must not be negative")
        return (axis,)

    examples = (
        Example("time", ((4, 2, 3),)),
        Example("another axis", ((2, 3, 4),), "reverse_param { axis: 2 }"),
    )
