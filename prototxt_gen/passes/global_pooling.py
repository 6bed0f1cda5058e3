"""Average pooling over the whole feature map made global, so that a classifier accepts images of other sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prototxt_gen.analysis import analyse
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.layers.vision.pooling import PoolingParameter

_WINDOW_FIELDS = ("kernel_size", "kernel_h", "kernel_w", "stride", "stride_h", "stride_w", "pad", "pad_h", "pad_w")


def with_global_pooling(net: Net, input_shapes: Mapping[str, Shape] | None = None) -> Net:
    """Return the net with `global_pooling` set in every average pooling whose window covers its whole bottom.

    `input_shapes` gives shapes of inputs that are not in the file; a layer whose bottom has no known shape is not
    changed. For images of the net's original size the result stays the same.
    """
    whole = {
        row.layer
        for row in analyse(net, input_shapes).rows
        if _covers_whole_bottom(row.layer, row.bottoms[:1], row.tops[:1])
    }
    return net.map(lambda layer: _as_global(layer) if layer in whole else layer)


def _covers_whole_bottom(layer: Layer, bottoms: tuple[Shape | None, ...], tops: tuple[Shape | None, ...]) -> bool:
    p = layer.get(PoolingParameter)
    if layer.type != "Pooling" or p.pool != "AVE" or p.global_pooling or None in (*bottoms, *tops):
        return False
    height, width = (bottoms[0] or ())[2:]
    window = (p.kernel_h or p.kernel_size, p.kernel_w or p.kernel_size)
    padded = p.pad or p.pad_h or p.pad_w
    return window == (height, width) and (tops[0] or ())[2:] == (1, 1) and not padded


def _as_global(layer: Layer) -> Layer:
    pooling = layer.get(PoolingParameter).replace(**dict.fromkeys(_WINDOW_FIELDS), global_pooling=True)
    return replace(layer, params=layer.params.replace(pooling_param=pooling))
