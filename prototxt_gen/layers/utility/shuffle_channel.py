"""Layer type ShuffleChannel (ShuffleNet): channels of all groups interleaved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ShuffleChannelParameter(Message, field="shuffle_channel_param", number=164):
    """The number is that of farmingyard/ShuffleNet; Synopsys has 166."""

    group = uint32(1, 1)


class ShuffleChannel(LayerType):
    """Interleave the channels of all groups: channel i of group j becomes channel i·groups + j.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/shuffle_channel_layer.cpp.
    Shape: N×C×H×W → N×C×H×W.
    Blobs: none.
    Differs: no difference from nn.ChannelShuffle. ONNX has no such operator; it is written as Reshape, Transpose,
        Reshape.
    """

    type = "ShuffleChannel"
    params = (ShuffleChannelParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), group = bottoms, layer.get(ShuffleChannelParameter).group
        if len(bottom) != 4 or group < 1 or bottom[1] % group:
            raise layer.error(f"it needs 4 axes and a group that divides the channels; its bottom is {show(bottom)}")
        return [bottom]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.ChannelShuffle(layer.get(ShuffleChannelParameter).group)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,), group = bottoms, layer.get(ShuffleChannelParameter).group
        shape = g.shape(x)
        split = g.op("Reshape", x, g.const([0, group, shape[1] // group, -1], "split"))
        interleaved = g.op("Transpose", split, perm=(0, 2, 1, 3))
        return g.op("Reshape", interleaved, g.op("Shape", x))

    examples = (
        Example("two groups", ((2, 6, 3, 4),), "shuffle_channel_param { group: 2 }"),
        Example("three groups", ((1, 12, 2, 2),), "shuffle_channel_param { group: 3 }"),
        Example("one group", ((1, 4, 2, 3),)),
    )
