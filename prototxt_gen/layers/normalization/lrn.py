"""Layer type LRN: local response normalisation, across channels or within each channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_wrong_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import ENGINES
from prototxt_gen.schema.message import Message, enum, float32, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class LRNParameter(Message, field="lrn_param", number=118):
    local_size = uint32(1, 5)
    alpha = float32(2, 1.0)
    beta = float32(3, 0.75)
    norm_region = enum(4, "ACROSS_CHANNELS", "WITHIN_CHANNEL")
    k = float32(5, 1.0)
    engine = enum(6, *ENGINES)


class LRN(LayerType):
    """Compute x·(k + alpha·mean of x² nearby)^-beta, over nearby channels or over nearby pixels of the channel.

    Within a channel k is always 1.

    Source: src/caffe/layers/lrn_layer.cpp LRNLayer::CrossChannelForward_cpu, WithinChannelForward.
    Shape: N×C×H×W → N×C×H×W.
    Blobs: none.
    Differs: no difference from PyTorch and ONNX across channels; they have nothing for WITHIN_CHANNEL. The mean counts
        zeros beyond the edge.
    """

    type = "LRN"
    params = (LRNParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        size = layer.get(LRNParameter).local_size
        if size % 2 == 0:
            raise layer.error(f"local_size must be odd, not {size}")
        if len(bottoms[0]) != 4:
            raise layer.error(f"it needs a bottom with 4 axes, not {show(bottoms[0])}")
        if layer.get(LRNParameter).norm_region == "ACROSS_CHANNELS":
            refuse_wrong_in_place(layer)
        return bottoms

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn
        from torch.nn import functional

        p = layer.get(LRNParameter)
        if p.norm_region == "ACROSS_CHANNELS":
            return nn.LocalResponseNorm(p.local_size, p.alpha, p.beta, p.k)

        class LocalContrastNorm(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                mean = functional.avg_pool2d(x * x, p.local_size, 1, p.local_size // 2)
                return x * (1.0 + p.alpha * mean) ** -p.beta

        return LocalContrastNorm()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,) = bottoms
        p = layer.get(LRNParameter)
        across = p.norm_region == "ACROSS_CHANNELS"
        if across and p.alpha > 0 and p.beta > 0:
            return g.op("LRN", x, size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)
        mean = (_mean_across if across else _mean_within)(g, g.op("Mul", x, x), p.local_size)
        base = g.op("Add", g.op("Mul", mean, g.const(p.alpha, "alpha")), g.const(p.k if across else 1.0, "k"))
        return g.op("Mul", x, g.op("Pow", base, g.const(-p.beta, "minus_beta")))

    examples = (
        Example("default", ((2, 7, 3, 4),)),
        Example("with k", ((1, 6, 3, 3),), "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }"),
        Example("wider than the channels", ((1, 2, 3, 3),), "lrn_param { local_size: 7 }"),
        Example("of one channel", ((2, 3, 3, 3),), "lrn_param { local_size: 1 alpha: 0.3 }"),
        Example(
            "within channel, k not used",
            ((2, 2, 5, 6),),
            "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 norm_region: WITHIN_CHANNEL }",
        ),
        Example("within channel, wide", ((1, 2, 3, 4),), "lrn_param { local_size: 5 norm_region: WITHIN_CHANNEL }"),
    )


def _mean_across(g: OnnxGraph, squares: str, size: int) -> str:
    """Write means over nearby channels as a pooling. ONNX Runtime's LRN accepts only alpha and beta above 0."""
    stacked = g.op("Unsqueeze", squares, g.const([1], "channels_as_an_axis"))
    pads = (size // 2, 0, 0) * 2
    mean = g.op("AveragePool", stacked, kernel_shape=(size, 1, 1), pads=pads, count_include_pad=1)
    return g.op("Squeeze", mean, g.const([1], "channels_as_an_axis"))


def _mean_within(g: OnnxGraph, squares: str, size: int) -> str:
    """Write means over nearby pixels of each channel."""
    return g.op("AveragePool", squares, kernel_shape=(size,) * 2, pads=(size // 2,) * 4, count_include_pad=1)
