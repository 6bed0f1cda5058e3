"""HDF5Data and HDF5Output: blobs from and to HDF5 files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, LayerType, exactly, show_all
from prototxt_gen.layers.data._image_shape import need_batch, unknown
from prototxt_gen.schema.message import Message, boolean, string, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class HDF5DataParameter(Message, field="hdf5_data_param", number=112):
    source = string(1)
    batch_size = uint32(2)
    shuffle = boolean(3)


class HDF5OutputParameter(Message, field="hdf5_output_param", number=113):
    file_name = string(1)


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


class HDF5Output(LayerType):
    """Writes its bottoms to an HDF5 file, as data sets `data` and `label`.

    Source: src/caffe/layers/hdf5_output_layer.cpp HDF5OutputLayer::Forward_cpu, SaveBlobs.
    Shape: no tops; the bottoms have the same batch and at most four axes.
    Blobs: none.
    Differs: a module or graph writes no files; it is refused, never skipped.
    """

    type = "HDF5Output"
    params = (HDF5OutputParameter,)
    bottoms = exactly(2)
    tops = exactly(0)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        for bottom in bottoms:
            if len(bottom) > 4:
                raise layer.error(f"its bottom {show(bottom)} has more than four axes")
        if (*bottoms[0], 1)[0] != (*bottoms[1], 1)[0]:
            raise layer.error(f"bottoms are {show_all(bottoms)}; it needs the same batch")
        return []

    def _refusal(self, layer: Layer) -> UnsupportedError:
        file = layer.get(HDF5OutputParameter).file_name
        return UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): it writes {file!r}, which a converted net cannot; take it out"
        )

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        raise self._refusal(layer)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        raise self._refusal(layer)
