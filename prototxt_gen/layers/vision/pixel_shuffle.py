"""Layer type PixelShuffle (brocolli-caffe): channels moved to pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._depth_to_space_shared import depth_to_space_shape
from prototxt_gen.schema.message import Message, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class PixelShuffleParameter(Message, field="pixelshuffle_param", number=507):
    upscale_factor = int32(1)


class PixelShuffle(LayerType):
    """Move each group of b·b channels to one channel of b times the height and width, as torch.nn.PixelShuffle does.

    Source: brocolli-caffe 9.0.2 src/caffe/layers/pixelshuffle_layer.cpp PixelShuffleLayer::Forward_cpu.
    Shape: N×C×H×W → N×C/b²×H·b×W·b.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. The fork drops channels that are left over; here they are an error.
    """

    type = "PixelShuffle"
    params = (PixelShuffleParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [depth_to_space_shape(layer, bottoms[0], layer.get(PixelShuffleParameter).upscale_factor)]

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
