"""Layer type ChannelScale (happynear/caffe-windows): all channels of a pixel multiplied by one number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly, show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, boolean, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ChannelScaleParameter(Message, field="channel_scale_param", number=237):
    """The parameters of ChannelScale in happynear/caffe-windows."""

    do_forward = boolean(1, True)
    do_backward_feature = boolean(2, True)
    do_backward_scale = boolean(3, True)
    global_scale = boolean(4)
    max_global_scale = float32(5, 1000.0)
    min_global_scale = float32(6)
    init_global_scale = float32(7, 1.0)


class ChannelScale(LayerType):
    """Multiply all channels of each pixel of the first bottom by that pixel's number in the second bottom.

    Source: happynear/caffe-windows src/caffe/layers/channel_scale_layer.cpp ChannelScaleLayer::Forward_cpu.
    Shape: N×C×H×W and N×1×H×W (or any shape with N·H·W elements) → N×C×H×W.
    Blobs: none without global_scale.
    Differs: global_scale is refused, because the fork's CPU and GPU code compute that moving average differently.
        do_forward, do_backward_feature and do_backward_scale are refused if they are false.
    """

    type = "ChannelScale"
    params = (ChannelScaleParameter,)
    bottoms = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p, (x, scale) = layer.get(ChannelScaleParameter), bottoms
        if p.global_scale or not (p.do_forward and p.do_backward_feature and p.do_backward_scale):
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): global_scale, and do_forward or do_backward_… set to false, "
                "are not supported"
            )
        if not 2 <= len(x) <= 4 or not scale or x[0] != scale[0] or math.prod(x[:1] + x[2:]) != math.prod(scale):
            raise layer.error(
                f"bottoms are {show_all(bottoms)}; it needs NxCxHxW and one number for each pixel of each image"
            )
        return [x]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        class Scaled(nn.Module):
            def forward(self, bottom: Tensor, scale: Tensor) -> Tensor:
                return bottom * scale.reshape(bottom.shape[0], 1, *bottom.shape[2:])

        return Scaled()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        x, scale = bottoms
        shape = g.op("Concat", g.const([0, 1], "batch"), g.op("Shape", x, start=2), axis=0)
        return g.op("Mul", x, g.op("Reshape", scale, shape))

    examples = (
        Example("maps", ((2, 3, 2, 4), (2, 1, 2, 4))),
        Example("a number for each image", ((2, 3), (2,))),
    )
