"""Layer type ImageData: images from files that a text file lists."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.layers.data._image_shape import image_shape
from prototxt_gen.schema.caffe_proto import TransformationParameter
from prototxt_gen.schema.message import Message, boolean, enum, float32, int32, string, uint32


class ImageDataParameter(Message, field="image_data_param", number=115):
    """Fields scale, mean_file, crop_size and mirror are deprecated; ignore_label and label_type are PSPNet's."""

    source = string(1)
    scale = float32(2, 1.0)
    mean_file = string(3)
    batch_size = uint32(4, 1)
    crop_size = uint32(5)
    mirror = boolean(6)
    rand_skip = uint32(7)
    shuffle = boolean(8)
    new_height = uint32(9)
    new_width = uint32(10)
    is_color = boolean(11, True)
    root_folder = string(12)
    ignore_label = int32(15, 255)
    label_type = enum(16, "NONE", "IMAGE", "PIXEL", default="IMAGE")


def image_data_shape(layer: Layer) -> Shape:
    """Return N×C×H×W of the images. Raises UnsupportedError if the prototxt does not specify their size.

    Source: src/caffe/layers/image_data_layer.cpp ImageDataLayer::DataLayerSetUp.
    """
    p = layer.get(ImageDataParameter)
    if bool(p.new_height) != bool(p.new_width):
        raise layer.error("new_height and new_width must both be given, or neither")
    return image_shape(layer, p.batch_size, 3 if p.is_color else 1, p.new_height, p.new_width)


class ImageData(LayerType):
    """Read images from listed files; resize and transform them; read one label for each.

    Source: src/caffe/layers/image_data_layer.cpp ImageDataLayer::DataLayerSetUp.
    Shape: N×3×H×W, or N×1×H×W if is_color is false; N labels. H×W is known if there is a crop, or new_height and
        new_width.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "ImageData"
    params = (ImageDataParameter, TransformationParameter)
    bottoms = exactly(0)
    tops = exactly(2)
    data = True
    labels = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        images = image_data_shape(layer)
        return [images, images[:1]]
