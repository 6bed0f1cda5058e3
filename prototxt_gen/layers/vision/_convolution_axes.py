"""Convolutions that torch.nn does not have: channels on any axis, no spatial axis, or more than three spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from prototxt_gen.ir import Shape
from prototxt_gen.layers.vision._convolution_window import Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


def with_channels_at(module: nn.Module, axis: int, bottom: Shape) -> nn.Module:
    """Return a module that applies `module`, made for N×C×…, to channels on axis `axis`.

    The axes before the channels are joined to the batch. If no axis follows the channels, one of size 1 is appended.
    """
    from torch import nn

    if axis == 1 and len(bottom) > 2:
        return module

    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            images, spatial = x.shape[:axis], x.shape[axis + 1 :]
            top: Tensor = self.inner(x.reshape(math.prod(images), x.shape[axis], *(spatial or (1,))))
            return top.reshape(*images, top.shape[1], *(top.shape[2:] if spatial else ()))

    return Folded()


def with_extra_padding(module: nn.Module, w: Window) -> nn.Module:
    """Return a module that pads as the window does and then applies `module`, a convolution without padding.

    If the kernel is too large, the padding reaches up to its end.
    """
    from torch import nn
    from torch.nn import functional

    class Reaching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            top: Tensor = self.inner(functional.pad(x, w.with_padding_for_kernel(tuple(x.shape[2:])).torch_padding()))
            return top

    return Reaching()


def channels_to_axis_1_onnx(g: OnnxGraph, x: str, axis: int) -> str:
    """Write the reshape of a value with channels on axis `axis` to N×C×…."""
    shape = g.shape(x)
    if axis == 1 and len(shape) > 2:
        return x
    images = -1 if axis else 1
    return g.op("Reshape", x, g.const([images, shape[axis], *(shape[axis + 1 :] or (1,))], "shape"))


def channels_from_axis_1_onnx(g: OnnxGraph, value: str, axis: int, bottom: Shape, top: Shape) -> str:
    """Write the reshape of a node's N×C×… output back to the axes of the top."""
    if axis == 1 and len(bottom) > 2:
        return value
    return g.op("Reshape", value, g.const([-1, *top[1:]] if axis else list(top), "shape"))


def columns(w: Window, axis: int) -> nn.Module:
    """Return a module that makes every pixel under the kernel a channel of the kernel's position, as im2col does."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Im2Col(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            spatial = tuple(x.shape[axis + 1 :])
            counts = w.output_size(spatial)
            x = functional.pad(x, w.with_padding_for_kernel(spatial).torch_padding())
            elements = (self.under(x, element, counts) for element in product(*map(range, w.kernel)))
            return torch.stack(list(elements), dim=axis + 1).flatten(axis, axis + 1)

        def under(self, x: Tensor, element: Sequence[int], counts: Shape) -> Tensor:
            """Return what one element of the kernel covers at all its positions."""
            for i, (index, count) in enumerate(zip(element, counts, strict=True)):
                first = index * w.dilation[i]
                slices = slice(first, first + (count - 1) * w.stride[i] + 1, w.stride[i])
                x = x[(slice(None),) * (axis + 1 + i) + (slices,)]
            return x

    return Im2Col()


def convolution_by_columns(w: Window, axis: int, weight: Shape, group: int, bias: bool) -> nn.Module:
    """Return a convolution over any number of spatial axes: a matrix product with the columns, for each group."""
    import torch
    from torch import nn

    class ConvolutionByColumns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.columns = columns(w, axis)
            self.weight = nn.Parameter(torch.zeros(weight))
            self.bias = nn.Parameter(torch.zeros(weight[0])) if bias else None

        def forward(self, x: Tensor) -> Tensor:
            columns: Tensor = self.columns(x)
            images, spatial = columns.shape[:axis], columns.shape[axis + 1 :]
            kernels = self.weight.reshape(group, weight[0] // group, -1)
            top = kernels @ columns.reshape(math.prod(images), group, kernels.shape[2], -1)
            top = top.reshape(*images, weight[0], *spatial)
            return top if self.bias is None else top + self.bias.reshape(-1, *[1] * len(spatial))

    return ConvolutionByColumns()
