"""Repetition of pixels, for Upsample and UpsampleDarknet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


def repeat_module(scale: int, axes: int) -> nn.Module:
    """Return a module that repeats each pixel `scale` times along the last axes."""
    from torch import nn

    if scale == 2:  # with other factors, nn.Upsample uses rounded fractions
        return nn.Upsample(scale_factor=2.0, mode="nearest")

    class RepeatPixels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for axis in range(-axes, 0):
                x = x.repeat_interleave(scale, axis)
            return x

    return RepeatPixels()


def repeat_onnx(g: OnnxGraph, x: str, scales: Sequence[int]) -> str:
    """Write the repetition of each pixel along the last axes, `scales` times."""
    rank = len(g.shape(x))
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    factors = g.const([1.0] * (rank - len(scales)) + [float(scale) for scale in scales], "scales")
    return g.op("Resize", x, None, factors, **options)


def repeated_shape(bottom: Shape, scale: int, axes: int) -> Shape:
    """Return the shape with its last axes multiplied by `scale`."""
    return (*bottom[:-axes], *(size * scale for size in bottom[-axes:]))
