"""Layer type ChannelNorm (FlowNet 2): the length of each pixel's vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import refuse_wrong_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.loss_base import legacy_size

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ChannelNorm(LayerType):
    """Compute the Euclidean length of the vector of channels at each pixel.

    Source: lmb-freiburg/flownet2 src/caffe/layers/channel_norm_layer.cpp Forward_cpu, Backward_cpu.
    Shape: N×C×H×W → N×1×H×W.
    Blobs: none.
    Differs: no difference from torch.linalg.vector_norm, except that Caffe's gradient divides by the length plus 1e-9.
    """

    type = "ChannelNorm"

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,) = bottoms
        refuse_wrong_in_place(layer)
        return [(legacy_size(layer, bottom, 0), 1, legacy_size(layer, bottom, 2), legacy_size(layer, bottom, 3))]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        class ChannelNorm(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                x = x[(...,) + (None,) * (4 - x.dim())]
                length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
                return length

        return ChannelNorm()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,), rank = bottoms, len(g.shape(bottoms[0]))
        x = x if rank == 4 else g.op("Unsqueeze", x, g.const(list(range(rank, 4))))
        return g.op("ReduceL2", x, g.const([1]))

    examples = (
        Example("plain", ((2, 3, 4, 5),), gradients=False),
        Example("vectors", ((2, 3),), gradients=False),
    )
