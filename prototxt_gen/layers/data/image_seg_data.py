"""Layer type ImageSegData (PSPNet, DeepLab): images and label images from files that a text file lists."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.data.image_data import ImageDataParameter, image_data_shape
from prototxt_gen.schema.caffe_proto import TransformationParameter


class ImageSegData(LayerType):
    """Read images and label images (a label for each pixel) from listed files; transform both in the same way.

    Source: hszhao/PSPNet src/caffe/layers/image_seg_data_layer.cpp ImageSegDataLayer::DataLayerSetUp.
    Shape: images N×C×H×W, labels N×1×H×W, original image sizes N×1×1×2. If the prototxt omits tops, Caffe names them
        itself.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "ImageSegData"
    params = (ImageDataParameter, TransformationParameter)
    bottoms = exactly(0)
    tops = Arity(1, 3)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if layer.get(TransformationParameter).has("mean_file"):
            raise layer.error("mean_file is not allowed")
        images = image_data_shape(layer)
        return [images, (images[0], 1, *images[2:]), (images[0], 1, 1, 2)][: len(layer.tops)]
