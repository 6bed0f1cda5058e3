"""Layer type MemoryData: images and labels from the memory of the calling program."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.schema.message import Message, uint32


class MemoryDataParameter(Message, field="memory_data_param", number=119):
    batch_size = uint32(1)
    channels = uint32(2)
    height = uint32(3)
    width = uint32(4)


class MemoryData(LayerType):
    """Read images and labels from arrays in memory that the calling program supplies.

    Source: src/caffe/layers/memory_data_layer.cpp MemoryDataLayer::DataLayerSetUp.
    Shape: N×C×H×W and N labels.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "MemoryData"
    params = (MemoryDataParameter,)
    bottoms = exactly(0)
    tops = exactly(2)
    data = True
    labels = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(MemoryDataParameter)
        shape = (p.batch_size, p.channels, p.height, p.width)
        if 0 in shape:
            raise layer.error("it needs batch_size, channels, height and width, each at least 1")
        return [shape, (p.batch_size,)]
