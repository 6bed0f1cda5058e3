"""Layer type GSTiling (DenseBox): blocks of pixels moved to channels, or back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


class GSTilingParameter(Message, field="gs_tiling_param", number=1300):
    """The numbers are those that Xilinx's Caffe wrote into its published weights."""

    stride = uint32(1)
    reverse = boolean(2)


class GSTiling(LayerType):
    """Move each block of s·s pixels to s·s groups of channels; `reverse` does the opposite.

    Source: Xilinx' Caffe src/caffe/layers/gs_tiling_layer.cpp GSTilingLayer::Forward_cpu.
    Shape: N×C×H×W → N×C·s²×H/s×W/s; reverse: N×C/s²×H·s×W·s.
    Blobs: none.
    Differs: PyTorch's PixelShuffle has another order of channels. No difference from ONNX's SpaceToDepth and
        DepthToSpace.
    """

    type = "GSTiling"
    params = (GSTilingParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(GSTilingParameter)
        refuse_in_place(layer)
        if p.stride < 1:
            raise layer.error("it needs a stride of at least 1")
        if p.reverse:
            return [depth_to_space_shape(layer, bottom, p.stride)]
        if len(bottom) != 4 or bottom[2] % p.stride or bottom[3] % p.stride:
            raise layer.error(f"stride {p.stride} does not divide the size of {show(bottom)}")
        return [(bottom[0], bottom[1] * p.stride**2, bottom[2] // p.stride, bottom[3] // p.stride)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(GSTilingParameter)
        s = p.stride

        class SpaceToDepth(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                batch, channels, high, wide = x.shape
                split = x.reshape(batch, channels, high // s, s, wide // s, s)
                return split.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)

        return depth_to_space_module(s) if p.reverse else SpaceToDepth()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p = layer.get(GSTilingParameter)
        if p.reverse:
            return g.op("DepthToSpace", bottoms[0], blocksize=p.stride, mode="DCR")
        return g.op("SpaceToDepth", bottoms[0], blocksize=p.stride)

    examples = (
        Example("to channels", ((2, 3, 4, 6),), "gs_tiling_param { stride: 2 }"),
        Example("to pixels", ((2, 18, 2, 3),), "gs_tiling_param { stride: 3 reverse: true }"),
    )
