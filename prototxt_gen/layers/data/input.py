"""Layer type Input: blobs that the calling program fills."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.data._image_shape import unknown_shape_error
from prototxt_gen.schema.caffe_proto import BlobShape
from prototxt_gen.schema.message import Message, message, repeated


class InputParameter(Message, field="input_param", number=143):
    shape = repeated(message(1, BlobShape))


class Input(LayerType):
    """Declare blobs of given shapes that the calling program fills.

    Source: src/caffe/layers/input_layer.cpp InputLayer::LayerSetUp.
    Shape: one shape for all tops, or one for each. Without a shape, Caffe expects the calling program to set it.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "Input"
    params = (InputParameter,)
    bottoms = exactly(0)
    tops = Arity(1)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        shapes, tops = layer.get(InputParameter).shape, len(layer.tops)
        if not shapes:
            raise unknown_shape_error(layer, "the shape of its tops is")
        if len(shapes) not in (1, tops):
            raise layer.error(f"it has {len(shapes)} shapes for {tops} tops; it needs one, or one for each top")
        return [shapes[0 if len(shapes) == 1 else index].dim for index in range(tops)]
