"""ImageSegData"""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.data.image_data import ImageDataParameter, listed_images
from prototxt_gen.schema.caffe_proto import TransformationParameter


class ImageSegData(LayerType):
    """Images from files, a label for each pixel, and the sizes the images had.

    Source: hszhao/PSPNet src/caffe/layers/image_seg_data_layer.cpp ImageSegDataLayer::DataLayerSetUp.
    Shape: N×C×H×W, N×1×H×W, N×1×1×2; Caffe makes up the names of tops that are left out.
    Blobs: none.
    Differs: an input of the module, of the graph.
    """

    type = "ImageSegData"
    params = (ImageDataParameter, TransformationParameter)
    bottoms = exactly(0)
    tops = Arity(1, 3)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if layer.get(TransformationParameter).has("mean_file"):
            raise layer.error("it takes no mean_file")
        images = listed_images(layer)
        return [images, (images[0], 1, *images[2:]), (images[0], 1, 1, 2)][: len(layer.tops)]
