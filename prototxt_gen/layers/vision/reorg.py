"""Layer type Reorg (YOLO v2): darknet's reordering of pixels and channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._depth_to_space_shared import depth_to_space_module, depth_to_space_shape
from prototxt_gen.schema.message import Message, boolean, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ReorgParameter(Message, field="reorg_param", number=159):
    """The number is that of intel/caffe; Synopsys has 197."""

    stride = uint32(1)
    reverse = boolean(2)


class Reorg(LayerType):
    """Move pixels to channels as darknet's reorg does, which reads the bottom as if it were N×C/s²×H·s×W·s.

    Neighbouring pixels therefore do not stay together, as they do in SpaceToDepth.

    Source: intel/caffe include/caffe/layers/reorg_layer.hpp reorg_cpu, src/caffe/layers/reorg_layer.cpp. Synopsys' copy
        is the same for square bottoms.
    Shape: N×C×H×W → N×C·s²×H/s×W/s; `reverse`: N×C/s²×H·s×W·s, the inverse.
    Blobs: none.
    Differs: PyTorch's PixelUnshuffle and ONNX's SpaceToDepth have another order of the elements.
    """

    type = "Reorg"
    params = (ReorgParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(ReorgParameter)
        refuse_in_place(layer)
        if not p.has("stride"):
            raise layer.error("it needs a stride")
        larger = depth_to_space_shape(layer, bottom, p.stride)
        if p.reverse:
            return [larger]
        if bottom[2] % p.stride or bottom[3] % p.stride:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): stride {p.stride} does not divide the size of {show(bottom)}"
            )
        return [(bottom[0], bottom[1] * p.stride**2, bottom[2] // p.stride, bottom[3] // p.stride)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(ReorgParameter)
        s = p.stride

        class Scatter(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                batch, channels, high, wide = x.shape
                # the elements, in their order in memory, are read as images s times as high and wide
                split = x.reshape(batch, channels // s**2, high, s, wide, s)
                mixed = split.permute(0, 3, 5, 1, 2, 4)
                return mixed.reshape(batch, channels * s**2, high // s, wide // s)

        return depth_to_space_module(s) if p.reverse else Scatter()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,), p = bottoms, layer.get(ReorgParameter)
        s = p.stride
        if p.reverse:
            return g.op("DepthToSpace", x, blocksize=s, mode="DCR")
        _, channels, high, wide = g.shape(x)
        larger = g.op("Reshape", x, g.const([0, channels // s**2, high * s, wide * s], "larger"))
        mixed = g.op("SpaceToDepth", larger, blocksize=s)
        return g.op("Reshape", mixed, g.const([0, channels * s**2, high // s, wide // s], "top"))

    examples = (
        Example("square", ((2, 4, 4, 4),), "reorg_param { stride: 2 }", gradients=False),
        Example("oblong", ((1, 9, 3, 6),), "reorg_param { stride: 3 }", gradients=False),
        Example("reverse", ((1, 8, 2, 3),), "reorg_param { stride: 2 reverse: true }", gradients=False),
    )
