"""Layer type Transpose (OCR forks): axes in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.utility._axis_order import ReorderedAxes
from prototxt_gen.schema.message import Message, int32, repeated

if TYPE_CHECKING:
    pass


class TransposeParameter(Message, field="transpose_param", number=8266710):
    """The parameters of Transpose in senlinuc/caffe_ocr."""

    dim = repeated(int32(1))


class Transpose(ReorderedAxes):
    """Put the axes into the given order, in which each axis occurs once.

    Source: senlinuc/caffe_ocr src/caffe/layers/transpose_layer.cpp TransposeLayer::Reshape.
    Shape: axis i of the top is axis dim(i) of the bottom.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "Transpose"
    params = (TransposeParameter,)

    def order(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        refuse_in_place(layer)
        dims = layer.get(TransposeParameter).dim
        if sorted(dims) != list(range(len(bottom))) or not bottom:
            raise layer.error(
                f"dim {', '.join(map(str, dims))} must contain each axis of its bottom {show(bottom)} once"
            )
        return dims

    examples = (Example("time first", ((2, 3, 1, 4),), "transpose_param { dim: 3 dim: 2 dim: 0 dim: 1 }"),)
