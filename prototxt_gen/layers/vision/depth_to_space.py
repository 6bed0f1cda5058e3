"""Layer type DepthToSpace (synopsys-caffe): channels moved to pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._depth_to_space_shared import depth_to_space_module, depth_to_space_shape
from prototxt_gen.schema.message import Message, int32, string

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class DepthToSpaceParameter(Message, field="depth_to_space_param", number=208):
    block_size = int32(1)
    data_format = string(2, "NHWC")


class DepthToSpace(LayerType):
    """Move groups of b·b channels to blocks of pixels, in TensorFlow's order (NHWC, NCHW or DCR) or in PyTorch's (CRD).

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/depth_to_space_layer.cpp.
    Shape: N×C×H×W → N×C/b²×H·b×W·b; with data_format NHWC, the default, N×H×W×C → N×H·b×W·b×C/b².
    Blobs: none.
    Differs: no difference from ONNX, except for NHWC, which is transposed. The fork has no backward pass; here there is
        one.
    """

    type = "DepthToSpace"
    params = (DepthToSpaceParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(DepthToSpaceParameter)
        refuse_in_place(layer)
        if p.data_format not in ("NHWC", "NCHW", "DCR", "CRD"):
            raise layer.error(f"data_format must be NHWC, NCHW, DCR or CRD, not {p.data_format}")
        if p.data_format != "NHWC":
            return [depth_to_space_shape(layer, bottom, p.block_size)]
        channels_first = (*bottom[:1], *bottom[3:], *bottom[1:3])
        batch, channels, high, wide = depth_to_space_shape(layer, channels_first, p.block_size)
        return [(batch, high, wide, channels)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(DepthToSpaceParameter)
        if p.data_format == "CRD":
            return nn.PixelShuffle(p.block_size)
        inner = depth_to_space_module(p.block_size)
        if p.data_format != "NHWC":
            return inner

        class ChannelsLast(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: Tensor) -> Tensor:
                top: Tensor = self.inner(x.permute(0, 3, 1, 2))
                return top.permute(0, 2, 3, 1)

        return ChannelsLast()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,), p = bottoms, layer.get(DepthToSpaceParameter)
        mode = "CRD" if p.data_format == "CRD" else "DCR"
        if p.data_format != "NHWC":
            return g.op("DepthToSpace", x, blocksize=p.block_size, mode=mode)
        top = g.op("DepthToSpace", g.op("Transpose", x, perm=(0, 3, 1, 2)), blocksize=p.block_size, mode=mode)
        return g.op("Transpose", top, perm=(0, 2, 3, 1))

    examples = (
        Example("channels last", ((2, 3, 2, 8),), "depth_to_space_param { block_size: 2 }", gradients=False),
        Example(
            "channels first",
            ((1, 8, 3, 2),),
            'depth_to_space_param { block_size: 2 data_format: "NCHW" }',
            gradients=False,
        ),
        Example(
            "as PyTorch", ((1, 9, 2, 3),), 'depth_to_space_param { block_size: 3 data_format: "CRD" }', gradients=False
        ),
    )
