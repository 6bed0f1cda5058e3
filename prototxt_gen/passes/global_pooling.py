"""A classifier's head for images of another size: average pooling over the whole map stays over the whole map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prototxt_gen.analysis import analyse
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.layers.vision.pooling import PoolingParameter

_WINDOW = ("kernel_size", "kernel_h", "kernel_w", "stride", "stride_h", "stride_w", "pad", "pad_h", "pad_w")


def following_head(net: Net, given: Mapping[str, Shape] | None = None) -> Net:
    """Return the net with every average pooling that covers its whole bottom made a global one.

    `given` are the shapes of inputs by blob that the net does not declare itself; a layer whose bottom is not known
    stays as it is. At the net's own size nothing is computed otherwise.
    """
    whole = {row.layer for row in analyse(net, given).rows if _covers(row.layer, row.bottoms[:1], row.tops[:1])}
    return net.map(lambda layer: _made_global(layer) if layer in whole else layer)


def _covers(layer: Layer, bottoms: tuple[Shape | None, ...], tops: tuple[Shape | None, ...]) -> bool:
    p = layer.get(PoolingParameter)
    if layer.type != "Pooling" or p.pool != "AVE" or p.global_pooling or None in (*bottoms, *tops):
        return False
    height, width = (bottoms[0] or ())[2:]
    window = (p.kernel_h or p.kernel_size, p.kernel_w or p.kernel_size)
    padded = p.pad or p.pad_h or p.pad_w
    return window == (height, width) and (tops[0] or ())[2:] == (1, 1) and not padded


def _made_global(layer: Layer) -> Layer:
    own = layer.get(PoolingParameter).replace(**dict.fromkeys(_WINDOW), global_pooling=True)
    return replace(layer, params=layer.params.replace(pooling_param=own))
