"""Layer type Data: images and labels from an LMDB or LevelDB."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.data._image_shape import image_shape
from prototxt_gen.schema.caffe_proto import TransformationParameter
from prototxt_gen.schema.message import Message, boolean, enum, float32, string, uint32


class DataParameter(Message, field="data_param", number=107):
    """Fields scale, mean_file, crop_size and mirror are deprecated; they belong in transform_param."""

    source = string(1)
    scale = float32(2, 1.0)
    mean_file = string(3)
    batch_size = uint32(4)
    crop_size = uint32(5)
    mirror = boolean(6)
    rand_skip = uint32(7)
    backend = enum(8, "LEVELDB", "LMDB")
    force_encoded_color = boolean(9)
    prefetch = uint32(10, 4)


class Data(LayerType):
    """Read images and their labels from a database; transform the images.

    Source: src/caffe/layers/data_layer.cpp DataLayer::DataLayerSetUp, data_transformer.cpp.
    Shape: N×C×H×W and N labels. C is known if transform_param has several mean values, force_color or force_gray; H×W
        is known if it has a crop, or SSD's resize_param. Images stored as raw pixels keep their channels whatever
        force_color and force_gray say.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "Data"
    params = (DataParameter, TransformationParameter)
    bottoms = exactly(0)
    tops = Arity(1, 2)
    data = True
    labels = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        batch = layer.get(DataParameter).batch_size
        return [image_shape(layer, batch), (batch,)][: len(layer.tops)]
