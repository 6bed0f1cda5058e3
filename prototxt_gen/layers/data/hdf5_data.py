"""Layer type HDF5Data: blobs from HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.data._image_shape import check_batch_size, unknown_shape_error
from prototxt_gen.schema.message import Message, boolean, string, uint32

if TYPE_CHECKING:
    pass


class HDF5DataParameter(Message, field="hdf5_data_param", number=112):
    source = string(1)
    batch_size = uint32(2)
    shuffle = boolean(3)


class HDF5Data(LayerType):
    """Read each top from the data set of its name, in the HDF5 files that `source` lists.

    Source: src/caffe/layers/hdf5_data_layer.cpp HDF5DataLayer::LayerSetUp.
    Shape: N×…; the axes after the first are as in the first file, so the prototxt never specifies them.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "HDF5Data"
    params = (HDF5DataParameter,)
    bottoms = exactly(0)
    tops = Arity(1)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if layer.params.has("transform_param"):
            raise layer.error("it does not transform data; remove transform_param")
        check_batch_size(layer, layer.get(HDF5DataParameter).batch_size)
        raise unknown_shape_error(layer, "the shape of its tops is")
