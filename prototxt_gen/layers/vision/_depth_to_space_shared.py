"""Shape and module for moving channels to pixels: used by DepthToSpace, PixelShuffle, Reorg, GSTiling and Reshape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show

if TYPE_CHECKING:
    from torch import Tensor, nn


def depth_to_space_shape(layer: Layer, bottom: Shape, block: int) -> Shape:
    """Return N×C/b²×H·b×W·b for N×C×H×W. Raises NetError or UnsupportedError if the block size does not fit."""
    if len(bottom) != 4 or block < 1:
        raise layer.error(f"it needs a bottom with 4 axes and a factor of at least 1, not {show(bottom)} and {block}")
    if bottom[1] % (block * block):
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): {block}x{block} does not divide the channels of {show(bottom)}"
        )
    return (bottom[0], bottom[1] // (block * block), bottom[2] * block, bottom[3] * block)


def depth_to_space_module(block: int) -> nn.Module:
    """Return a module that moves channels to pixels in TensorFlow's order (DCR).

    The position in the block is the slow part of the channel index.
    """
    from torch import nn

    class DepthToSpace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            batch, channels, high, wide = x.shape
            split = x.reshape(batch, block, block, channels // block**2, high, wide)
            return split.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)

    return DepthToSpace()
