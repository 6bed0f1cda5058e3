"""Convolutions over other axes than the stock ones: channels anywhere, no spatial axis, or more than three."""

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


def folded(module: nn.Module, axis: int, bottom: Shape) -> nn.Module:
    """Let a module of N×C×… work on channels at `axis`: the axes before it count as images.

    Where no axis follows the channels, it sees one pixel.
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


def reaching(module: nn.Module, w: Window) -> nn.Module:
    """Let a convolution without padding pad as the window does and, for too large a kernel, as far as that reaches."""
    from torch import nn
    from torch.nn import functional

    class Reaching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            top: Tensor = self.inner(functional.pad(x, w.widened(tuple(x.shape[2:])).around()))
            return top

    return Reaching()


def fold_onnx(g: OnnxGraph, x: str, axis: int) -> str:
    """Write the way into a node of N×C×… for channels at `axis`."""
    shape = g.shape(x)
    if axis == 1 and len(shape) > 2:
        return x
    images = -1 if axis else 1
    return g.op("Reshape", x, g.const([images, shape[axis], *(shape[axis + 1 :] or (1,))], "shape"))


def unfold_onnx(g: OnnxGraph, made: str, axis: int, bottom: Shape, top: Shape) -> str:
    """Write the way back from such a node to the top's own axes."""
    if axis == 1 and len(bottom) > 2:
        return made
    return g.op("Reshape", made, g.const([-1, *top[1:]] if axis else list(top), "shape"))


def columns(w: Window, axis: int) -> nn.Module:
    """Return a module that makes each pixel a kernel sees at a place a channel of that place, in the weights' order."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Im2Col(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            spatial = tuple(x.shape[axis + 1 :])
            steps = w.steps(spatial)
            x = functional.pad(x, w.widened(spatial).around())
            places = (self.under(x, place, steps) for place in product(*map(range, w.kernel)))
            return torch.stack(list(places), dim=axis + 1).flatten(axis, axis + 1)

        def under(self, x: Tensor, place: Sequence[int], steps: Shape) -> Tensor:
            """Return what one place of the kernel sees in its course over the bottom."""
            for i, (at, count) in enumerate(zip(place, steps, strict=True)):
                first = at * w.dilation[i]
                slices = slice(first, first + (count - 1) * w.stride[i] + 1, w.stride[i])
                x = x[(slice(None),) * (axis + 1 + i) + (slices,)]
            return x

    return Im2Col()


def by_columns(w: Window, axis: int, weight: Shape, group: int, bias: bool) -> nn.Module:
    """Return a convolution over any number of spatial axes: a matrix product with the columns, group by group."""
    import torch
    from torch import nn

    class ConvolutionByColumns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.columns = columns(w, axis)
            self.weight = nn.Parameter(torch.zeros(weight))
            self.bias = nn.Parameter(torch.zeros(weight[0])) if bias else None

        def forward(self, x: Tensor) -> Tensor:
            seen: Tensor = self.columns(x)
            images, spatial = seen.shape[:axis], seen.shape[axis + 1 :]
            kernels = self.weight.reshape(group, weight[0] // group, -1)
            top = kernels @ seen.reshape(math.prod(images), group, kernels.shape[2], -1)
            top = top.reshape(*images, weight[0], *spatial)
            return top if self.bias is None else top + self.bias.reshape(-1, *[1] * len(spatial))

    return ConvolutionByColumns()
