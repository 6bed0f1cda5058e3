"""Layer type Tile: a blob repeated along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class TileParameter(Message, field="tile_param", number=138):
    axis = int32(1, 1)
    tiles = int32(2)


def repeats(layer: Layer, bottom: Shape) -> tuple[int, ...]:
    """Return the number of repetitions along each axis."""
    p = layer.get(TileParameter)
    axis = canonical_axis(layer, p.axis, bottom)
    if p.tiles < 1:
        raise layer.error("it needs tiles of at least 1")
    return tuple(p.tiles if index == axis else 1 for index in range(len(bottom)))


class Tile(LayerType):
    """Repeat the bottom `tiles` times along an axis (default: 1, the channels).

    Source: src/caffe/layers/tile_layer.cpp TileLayer::Reshape, Forward_cpu.
    Shape: the bottom's shape, with the size along the axis multiplied by tiles.
    Blobs: none.
    Differs: no difference from PyTorch's repeat or ONNX's Tile.
    """

    type = "Tile"
    params = (TileParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [tuple(size * times for size, times in zip(bottoms[0], repeats(layer, bottoms[0]), strict=True))]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        times = repeats(layer, bottoms[0])

        class Repeated(nn.Module):
            def forward(self, bottom: Tensor) -> Tensor:
                return bottom.repeat(times)

        return Repeated()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Tile", bottoms[0], g.const(repeats(layer, g.shape(bottoms[0])), "repeats"))

    examples = (
        Example("channels", ((2, 3, 2, 2),), "tile_param { tiles: 3 }"),
        Example("last axis", ((2, 3, 2),), "tile_param { axis: -1 tiles: 2 }"),
        Example("batch", ((2, 3),), "tile_param { axis: 0 tiles: 2 }"),
        Example("once", ((2, 3),), "tile_param { tiles: 1 }"),
    )
