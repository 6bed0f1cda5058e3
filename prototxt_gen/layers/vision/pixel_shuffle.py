"""PixelShuffle, DepthToSpace and darknet's Reorg: channels become pixels, or pixels channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, boolean, int32, string, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class PixelShuffleParameter(Message, field="pixelshuffle_param", number=507):
    upscale_factor = int32(1)


class DepthToSpaceParameter(Message, field="depth_to_space_param", number=208):
    block_size = int32(1)
    data_format = string(2, "NHWC")


class ReorgParameter(Message, field="reorg_param", number=159):
    """The number is that of intel/caffe; Synopsys has 197."""

    stride = uint32(1)
    reverse = boolean(2)


def spread(layer: Layer, bottom: Shape, block: int) -> Shape:
    """Return N×C/b²×H·b×W·b for N×C×H×W, or the error of a block that does not fit."""
    if len(bottom) != 4 or block < 1:
        raise layer.error(f"it takes a bottom of 4 axes and a factor of at least 1, not {show(bottom)} and {block}")
    if bottom[1] % (block * block):
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): {block}x{block} does not divide the channels of {show(bottom)}"
        )
    return (bottom[0], bottom[1] // (block * block), bottom[2] * block, bottom[3] * block)


def depth_to_space_module(block: int) -> nn.Module:
    """Return a module that takes the place in the block from the slow part of the channels, as TensorFlow does."""
    from torch import nn

    class DepthToSpace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            batch, channels, high, wide = x.shape
            split = x.reshape(batch, block, block, channels // block**2, high, wide)
            return split.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)

    return DepthToSpace()


class PixelShuffle(LayerType):
    """Each block of b·b channels becomes one channel of b times the height and width.

    Source: brocolli-caffe 9.0.2 src/caffe/layers/pixelshuffle_layer.cpp PixelShuffleLayer::Forward_cpu.
    Shape: N×C×H×W → N×C/b²×H·b×W·b.
    Blobs: none.
    Differs: from PyTorch, ONNX: not at all, but that there, channels left over are dropped; here they are an error.
    """

    type = "PixelShuffle"
    params = (PixelShuffleParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [spread(layer, bottoms[0], layer.get(PixelShuffleParameter).upscale_factor)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.PixelShuffle(layer.get(PixelShuffleParameter).upscale_factor)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        block = layer.get(PixelShuffleParameter).upscale_factor
        return g.op("DepthToSpace", bottoms[0], blocksize=block, mode="CRD")

    examples = (
        Example("twice", ((2, 8, 3, 4),), "pixelshuffle_param { upscale_factor: 2 }", gradients=False),
        Example("three times", ((1, 9, 2, 3),), "pixelshuffle_param { upscale_factor: 3 }", gradients=False),
    )


class DepthToSpace(LayerType):
    """Blocks of channels become pixels, in one of three orders: TensorFlow's, the same with channels first, PyTorch's.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/depth_to_space_layer.cpp.
    Shape: N×C×H×W → N×C/b²×H·b×W·b; with data_format NHWC, the default there, N×H×W×C → N×H·b×W·b×C/b².
    Blobs: none.
    Differs: from ONNX: not at all, with its channels moved. The fork has no backward pass; this one has.
    """

    type = "DepthToSpace"
    params = (DepthToSpaceParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(DepthToSpaceParameter)
        refuse_in_place(layer)
        if p.data_format not in ("NHWC", "NCHW", "DCR", "CRD"):
            raise layer.error(f"data_format is NHWC, NCHW, DCR or CRD, not {p.data_format}")
        if p.data_format != "NHWC":
            return [spread(layer, bottom, p.block_size)]
        first = (*bottom[:1], *bottom[3:], *bottom[1:3])
        batch, channels, high, wide = spread(layer, first, p.block_size)
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
        made = g.op("DepthToSpace", g.op("Transpose", x, perm=(0, 3, 1, 2)), blocksize=p.block_size, mode=mode)
        return g.op("Transpose", made, perm=(0, 2, 3, 1))

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


class Reorg(LayerType):
    """Darknet's reorg: pixels become channels as if the bottom were N×C/s²×H·s×W·s, so that neighbours get scattered.

    Source: intel/caffe include/caffe/layers/reorg_layer.hpp reorg_cpu, src/caffe/layers/reorg_layer.cpp. Synopsys'
    copy is the same for square bottoms.
    Shape: N×C×H×W → N×C·s²×H/s×W/s; `reverse` gives N×C/s²×H·s×W·s and undoes it, read in the same odd way.
    Blobs: none.
    Differs: from PyTorch's PixelUnshuffle and ONNX's SpaceToDepth: by the order of what comes out.
    """

    type = "Reorg"
    params = (ReorgParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(ReorgParameter)
        refuse_in_place(layer)
        if not p.has("stride"):
            raise layer.error("it needs stride")
        larger = spread(layer, bottom, p.stride)
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
                # the numbers in their order in memory, taken for planes s times as high and wide
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
