"""Unpooling by a mask, for Upsample and MaxUnPool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import show_all

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


def check_mask(layer: Layer, bottoms: Sequence[Shape]) -> None:
    """Raise NetError unless there are four axes and the mask has the shape of the bottom."""
    if len(bottoms[0]) != 4 or bottoms[0] != bottoms[1]:
        raise layer.error(f"bottoms are {show_all(bottoms)}; it needs a blob with 4 axes and a mask of equal shape")


def unpool_module(size: tuple[int, int] | None, scale: tuple[int, int], less: tuple[int, int]) -> nn.Module:
    """Return a module that puts each number at the position h·W + w in the mask, into an image of zeros.

    The image has the size `size`; if that is None, the bottom's size times `scale`, minus `less`. Of two numbers at one
    position the last one stays.

    Source: alexgkendall/caffe-segnet src/caffe/layers/upsample_layer.cpp UpsampleLayer::Forward_cpu.
    """
    from torch import nn

    class UnpoolByMask(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            high, wide = size or (x.shape[2] * scale[0] - less[0], x.shape[3] * scale[1] - less[1])
            planes = x.new_zeros((x.shape[0], x.shape[1], high * wide))
            filled = planes.scatter(2, mask.flatten(2).long(), x.flatten(2))
            return filled.reshape(*x.shape[:2], high, wide)

    return UnpoolByMask()


def unpool_onnx(g: OnnxGraph, x: str, mask: str, size: Sequence[int]) -> str:
    """Write the unpooling of a bottom into images of this height and width."""
    batch = g.op("Shape", x, start=0, end=2)
    flat = g.const([0, 0, -1], "flat")
    plane = g.op("Concat", batch, g.const([size[0] * size[1]], "plane"), axis=0)
    zeros = g.op("Expand", g.const(0.0, "zero"), plane)
    places = g.op("Cast", g.op("Reshape", mask, flat), to=7)
    filled = g.op("ScatterElements", zeros, places, g.op("Reshape", x, flat), axis=2)
    return g.op("Reshape", filled, g.const([0, 0, *size], "size"))
