"""HDF5Data"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.data._image_shape import need_batch, unknown
from prototxt_gen.schema.message import Message, boolean, string, uint32

if TYPE_CHECKING:
    pass


class HDF5DataParameter(Message, field="hdf5_data_param", number=112):
    source = string(1)
    batch_size = uint32(2)
    shuffle = boolean(3)


class HDF5Data(LayerType):
    """For each top, rows of the data set of its name, from the HDF5 files that `source` lists.

    Source: src/caffe/layers/hdf5_data_layer.cpp HDF5DataLayer::LayerSetUp.
    Shape: N×…, the rest as in the first file, so never known from the prototxt.
    Blobs: none.
    Differs: an input of the module, of the graph.
    """

    type = "HDF5Data"
    params = (HDF5DataParameter,)
    bottoms = exactly(0)
    tops = Arity(1)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if layer.params.has("transform_param"):
            raise layer.error("it does not transform data; take transform_param away")
        need_batch(layer, layer.get(HDF5DataParameter).batch_size)
        raise unknown(layer, "the shape of its tops is")
