"""ImageData"""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.layers.data._image_shape import image_shape
from prototxt_gen.schema.caffe_proto import TransformationParameter
from prototxt_gen.schema.message import Message, boolean, enum, float32, int32, string, uint32


class ImageDataParameter(Message, field="image_data_param", number=115):
    """scale, mean_file, crop_size and mirror are those of old files; ignore_label and label_type are PSPNet's."""

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


def listed_images(layer: Layer) -> Shape:
    """Return N×C×H×W of the images. Source: src/caffe/layers/image_data_layer.cpp ImageDataLayer::DataLayerSetUp."""
    p = layer.get(ImageDataParameter)
    if bool(p.new_height) != bool(p.new_width):
        raise layer.error("new_height and new_width must be given together")
    return image_shape(layer, p.batch_size, 3 if p.is_color else 1, p.new_height, p.new_width)


class ImageData(LayerType):
    """Images from files, resized and transformed, and a label each.

    Source: src/caffe/layers/image_data_layer.cpp ImageDataLayer::DataLayerSetUp.
    Shape: N×3×H×W, or N×1×H×W for is_color: false, and N labels. H×W is known where there is a crop, or new_height and
    new_width.
    Blobs: none.
    Differs: an input of the module, of the graph.
    """

    type = "ImageData"
    params = (ImageDataParameter, TransformationParameter)
    bottoms = exactly(0)
    tops = exactly(2)
    data = True
    labels = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        images = listed_images(layer)
        return [images, images[:1]]
