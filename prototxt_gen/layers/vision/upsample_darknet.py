"""Layer type UpsampleDarknet (YOLO v3, synopsys-caffe): repeated pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._pixel_repetition import repeat_module, repeat_onnx, repeated_shape
from prototxt_gen.schema.message import Message, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class UpsampleDarknetParameter(Message, field="upsample_darknet_param", number=209):
    stride = int32(1, 1)


class UpsampleDarknet(LayerType):
    """Repeat each pixel `stride` times along height and width.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/upsample_darknet_layer.cpp.
    Shape: N×C×H×W → N×C×H·stride×W·stride.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "UpsampleDarknet"
    params = (UpsampleDarknetParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        stride = layer.get(UpsampleDarknetParameter).stride
        if len(bottoms[0]) != 4 or stride < 1:
            raise layer.error(
                f"it needs a bottom with 4 axes and a stride of at least 1, not {show(bottoms[0])} and {stride}"
            )
        return [repeated_shape(bottoms[0], stride, 2)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        return repeat_module(layer.get(UpsampleDarknetParameter).stride, 2)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return repeat_onnx(g, bottoms[0], [layer.get(UpsampleDarknetParameter).stride] * 2)

    examples = (
        Example("twice", ((2, 2, 3, 4),), "upsample_darknet_param { stride: 2 }"),
        Example("three times", ((1, 2, 2, 3),), "upsample_darknet_param { stride: 3 }"),
    )
