"""Layer type WindowData (R-CNN): windows cut out of images."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.layers.data._image_shape import image_shape
from prototxt_gen.schema.caffe_proto import TransformationParameter
from prototxt_gen.schema.message import Message, boolean, float32, string, uint32


class WindowDataParameter(Message, field="window_data_param", number=129):
    """Fields scale, mean_file, crop_size and mirror are deprecated; they belong in transform_param."""

    source = string(1)
    scale = float32(2, 1.0)
    mean_file = string(3)
    batch_size = uint32(4)
    crop_size = uint32(5)
    mirror = boolean(6)
    fg_threshold = float32(7, 0.5)
    bg_threshold = float32(8, 0.5)
    fg_fraction = float32(9, 0.25)
    context_pad = uint32(10)
    crop_mode = string(11, "warp")
    cache_images = boolean(12)
    root_folder = string(13)


class WindowData(LayerType):
    """Read foreground and background windows of images, each warped to a square, and the class of each.

    Source: src/caffe/layers/window_data_layer.cpp WindowDataLayer::DataLayerSetUp.
    Shape: N×C×crop_size×crop_size and N labels. C is known if there are several mean values.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "WindowData"
    params = (WindowDataParameter, TransformationParameter)
    bottoms = exactly(0)
    tops = exactly(2)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not layer.get(TransformationParameter).crop_size:
            raise layer.error("it needs transform_param { crop_size }")
        batch = layer.get(WindowDataParameter).batch_size
        return [image_shape(layer, batch), (batch,)]
