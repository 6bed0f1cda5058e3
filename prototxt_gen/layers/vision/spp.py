"""Layer type SPP: spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._pool_windows import (
    Pair,
    PoolWindow,
    average_onnx,
    average_pool,
    height_width,
    max_onnx,
    max_pool,
)
from prototxt_gen.schema.caffe_proto import ENGINES
from prototxt_gen.schema.message import Message, enum, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class SPPParameter(Message, field="spp_param", number=132):
    pyramid_height = uint32(1)
    pool = enum(2, "MAX", "AVE", "STOCHASTIC")
    engine = enum(6, *ENGINES)


def pyramid_windows(layer: Layer, size: Pair) -> Iterator[PoolWindow]:
    """Yield the window of each level over an image of this size: 1, 2, 4 … windows along each axis.

    Raises NetError if a level does not fit. Source: src/caffe/layers/spp_layer.cpp SPPLayer::GetPoolingParam.
    """
    for level in range(layer.get(SPPParameter).pyramid_height):
        bins = 2**level
        high, wide = (-(-pixels // bins) for pixels in size)
        down, right = ((kernel * bins - pixels + 1) // 2 for kernel, pixels in zip((high, wide), size, strict=True))
        if down >= high or right >= wide:
            raise layer.error(f"level {level} of the pyramid, {bins}x{bins} windows, does not fit {show(size)} pixels")
        yield PoolWindow((high, wide), (high, wide), (down, right), (down, right))


class SPP(LayerType):
    """Pool over the whole bottom, over its quarters, its sixteenths and so on; flatten and join the results.

    Source: src/caffe/layers/spp_layer.cpp SPPLayer::Forward_cpu.
    Shape: N×C×H×W → N×C·(1 + 4 + 16 …); with a pyramid_height of 1, N×C×1×1.
    Blobs: none.
    Differs: in PyTorch's adaptive pooling the windows of a level differ in size; here they are equal, and the bottom is
        padded to fit them. If the last windows of a level lie in the padding, they are dropped.
    """

    type = "SPP"
    params = (SPPParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,) = bottoms
        p = layer.get(SPPParameter)
        if len(bottom) != 4 or min(bottom[2:]) < 1:
            raise layer.error(f"it needs a bottom with 4 axes and at least one pixel, not {show(bottom)}")
        if p.pyramid_height < 1:
            raise layer.error("pyramid_height must be at least 1")
        size = (bottom[2], bottom[3])
        counts = [w.output_size(size) for w in pyramid_windows(layer, size)]
        if p.pyramid_height == 1:
            return [(*bottom[:2], *counts[0])]
        return [(bottom[0], sum(bottom[1] * high * wide for high, wide in counts))]

    def _check_pool(self, layer: Layer) -> SPPParameter:
        """Return the parameters. Raises UnsupportedError for stochastic pooling."""
        p = layer.get(SPPParameter)
        if p.pool == "STOCHASTIC":
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): stochastic pooling is not supported")
        return p

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        p = self._check_pool(layer)

        class SpatialPyramidPool(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                windows = pyramid_windows(layer, (x.shape[2], x.shape[3]))
                tops = [average_pool(x, w) if p.pool == "AVE" else max_pool(x, w)[0] for w in windows]
                return tops[0] if len(tops) == 1 else torch.cat([top.flatten(1) for top in tops], 1)

        return SpatialPyramidPool()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,) = bottoms
        p = self._check_pool(layer)
        windows = pyramid_windows(layer, height_width(g, x))
        tops = [average_onnx(g, x, w) if p.pool == "AVE" else str(max_onnx(g, x, w, False)) for w in windows]
        return tops[0] if len(tops) == 1 else g.op("Concat", *(g.op("Flatten", top) for top in tops), axis=1)

    examples = (
        Example("one level", ((2, 3, 4, 5),), "spp_param { pyramid_height: 1 }"),
        Example("three levels", ((2, 2, 8, 8),), "spp_param { pyramid_height: 3 }"),
        Example("odd sizes", ((1, 2, 7, 9),), "spp_param { pyramid_height: 2 }"),
        Example("a level with fewer windows", ((1, 2, 9, 9),), "spp_param { pyramid_height: 3 }"),
        Example("average", ((1, 2, 7, 9),), "spp_param { pyramid_height: 2 pool: AVE }"),
        Example("average, fewer windows", ((1, 2, 9, 10),), "spp_param { pyramid_height: 3 pool: AVE }"),
    )
