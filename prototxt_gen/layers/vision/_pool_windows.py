"""The windows of Pooling and SPP: how many there are, where they lie, and how PyTorch and ONNX come to the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

Pair = tuple[int, int]
"""A number for the height and one for the width."""
LOWEST = -3.4028234663852886e38
"""-FLT_MAX: what Caffe's maximum begins with, and so the top of a window without a pixel."""


class PoolWindow(NamedTuple):
    """A window that slides over a padded plane. Only forks let `end` differ from `begin`, or have a `dilation`."""

    kernel: Pair
    stride: Pair = (1, 1)
    begin: Pair = (0, 0)
    end: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = True
    pads_count: bool = True
    """Whether an average divides by the window's pixels in the padding too."""

    @property
    def extent(self) -> Pair:
        """The pixels that a dilated kernel spans."""
        high, wide = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return high, wide

    @property
    def padded(self) -> bool:
        return any(self.begin + self.end)

    def counts(self, size: Pair) -> Pair:
        """Return how many windows there are along each axis of a plane: the size of the top.

        Source: src/caffe/layers/pooling_layer.cpp PoolingLayer::Reshape.
        """
        return self._count(0, size[0]), self._count(1, size[1])

    def _count(self, axis: int, size: int) -> int:
        stride, count = self.stride[axis], self.unclipped(axis, size)
        # a window that would start at or beyond the end of the image goes, but only where there is padding at all
        return count - 1 if self.padded and (count - 1) * stride >= size + self.begin[axis] else count

    def unclipped(self, axis: int, size: int) -> int:
        """Return how many windows there would be if none were dropped for starting in the padding."""
        layer_type, stride = size + self.begin[axis] + self.end[axis] - self.extent[axis], self.stride[axis]
        return (-(-layer_type // stride) if self.ceil else layer_type // stride) + 1

    def overhang(self, size: Pair) -> Pair:
        """Return how far the last window reaches beyond the end of the plane, negative where it ends before."""
        high, wide = (
            (count - 1) * s + extent - begin - here
            for count, s, extent, begin, here in zip(
                self.counts(size), self.stride, self.extent, self.begin, size, strict=True
            )
        )
        return high, wide

    def areas(self, size: Pair) -> list[list[int]]:
        """Return each window's pixels, padding included where it counts: the divisors of an average.

        Not above 0 beyond the padding.

        Source: pooling_layer.cpp PoolingLayer::Forward_cpu, pool_size.
        """
        rows, columns = (self._spans(axis, size[axis]) for axis in (0, 1))
        return [[row * column for column in columns] for row in rows]

    def _spans(self, axis: int, size: int) -> list[int]:
        stop = size + self.end[axis]
        starts = (i * self.stride[axis] - self.begin[axis] for i in range(self._count(axis, size)))
        if self.pads_count:
            return [min(start + self.kernel[axis], stop) - start for start in starts]
        return [min(start + self.kernel[axis], size) - max(start, 0) for start in starts]

    @property
    def regular(self) -> bool:
        """Whether all frameworks make as many windows on a plane of any size: some drop those that start beyond it."""
        return not self.ceil or all(s + end <= e for s, end, e in zip(self.stride, self.end, self.extent, strict=True))

    @property
    def trailing(self) -> Pair:
        """How much to pad at the end, so that rounding down makes Caffe's windows on a plane of any size."""
        if not self.ceil:
            return self.end
        high, wide = (
            min(end + s - 1, e - 1) if self.padded else s - 1
            for s, end, e in zip(self.stride, self.end, self.extent, strict=True)
        )
        return high, wide

    def stock(self) -> bool:
        """Whether torch.nn's pooling makes the same windows on a plane of any size."""
        always_clips = (
            self.padded or not self.ceil or all(s <= e for s, e in zip(self.stride, self.extent, strict=True))
        )
        fits = all(2 * pad <= kernel for pad, kernel in zip(self.begin, self.kernel, strict=True))
        return self.begin == self.end and always_clips and fits and (self.pads_count or not self.padded)


def stock_module(average: bool, w: PoolWindow) -> nn.Module:
    """Return torch.nn's own pooling, for a window that is `stock`."""
    from torch import nn

    if average:
        return nn.AvgPool2d(w.kernel, w.stride, w.begin, ceil_mode=w.ceil)
    return nn.MaxPool2d(w.kernel, w.stride, w.begin, w.dilation, ceil_mode=w.ceil)


def window_module(average: bool, window_at: Callable[[Pair], PoolWindow], masked: bool = False) -> nn.Module:
    """Return a module that pools with the window that `window_at` gives for a plane's size; `masked` adds the mask."""
    from torch import nn

    class WindowPool(nn.Module):
        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            w = window_at((x.shape[2], x.shape[3]))
            if average:
                return average_pool(x, w)
            top, mask = max_pool(x, w)
            return (top, mask) if masked else top

    return WindowPool()


def _widen(x: Tensor, w: PoolWindow, value: float) -> Tensor:
    """Pad so that every window lies inside."""
    from torch.nn import functional

    below, right = w.trailing
    return functional.pad(x, (w.begin[1], right, w.begin[0], below), value=value)


def average_pool(x: Tensor, w: PoolWindow) -> Tensor:
    """Return Caffe's average of each window over N×C×H×W."""
    from torch.nn import functional

    areas = x.new_tensor(w.areas((x.shape[2], x.shape[3])))
    return functional.avg_pool2d(_widen(x, w, 0.0), w.kernel, w.stride, divisor_override=1) / areas


def max_pool(x: Tensor, w: PoolWindow) -> tuple[Tensor, Tensor]:
    """Return Caffe's maximum of each window over N×C×H×W, and its place h·W + w as a float, -1 where there is none."""
    import torch
    from torch.nn import functional

    high, wide = x.shape[2:]
    widened = _widen(x, w, LOWEST)
    top, place = functional.max_pool2d(widened, w.kernel, w.stride, 0, w.dilation, return_indices=True)
    rows = torch.div(place, widened.shape[3], rounding_mode="floor") - w.begin[0]
    columns = place % widened.shape[3] - w.begin[1]
    inside = (rows >= 0) & (rows < high) & (columns >= 0) & (columns < wide)
    return top, torch.where(inside, rows * wide + columns, -1).to(x.dtype)


def average_onnx(g: OnnxGraph, x: str, w: PoolWindow) -> str:
    """Write Caffe's average as AveragePool: plain where it says the same, else with divisors of our own."""
    import numpy as np

    rounds = w.ceil and w.stride != (1, 1)
    if w.pads_count and w.regular and not rounds:
        return g.op("AveragePool", x, count_include_pad=1, **_attributes(w))
    inside = w._replace(begin=(0, 0), end=(0, 0))
    if w.pads_count and w.regular:
        # zeros that are part of the image are counted, what lies beyond them is not: Caffe's divisor
        padded = _pad_onnx(g, x, w.begin, w.end, 0.0)
        return g.op("AveragePool", padded, ceil_mode=1, **_attributes(inside))
    padded = _pad_onnx(g, x, w.begin, w.trailing, 0.0)
    mean = g.op("AveragePool", padded, **_attributes(inside))
    with np.errstate(divide="ignore"):
        correction = np.float32(w.kernel[0] * w.kernel[1]) / np.asarray(w.areas(plane(g, x)), dtype="float32")
    return g.op("Mul", mean, correction)


def max_onnx(g: OnnxGraph, x: str, w: PoolWindow, masked: bool) -> str | tuple[str, str]:
    """Write Caffe's maximum, and its mask if `masked`, as MaxPool."""
    size = plane(g, x)
    outputs = 2 if masked else 1
    if w.regular:
        tops = g.ops("MaxPool", x, outputs=outputs, ceil_mode=int(w.ceil), dilations=w.dilation, **_attributes(w))
        return (tops[0], _mask_onnx(g, tops[1], size, (0, 0), (0, 0))) if masked else tops[0]
    padded = _pad_onnx(g, x, w.begin, w.trailing, LOWEST)
    inside = w._replace(begin=(0, 0), end=(0, 0))
    tops = g.ops("MaxPool", padded, outputs=outputs, dilations=w.dilation, **_attributes(inside))
    return (tops[0], _mask_onnx(g, tops[1], size, w.begin, w.trailing)) if masked else tops[0]


def _attributes(w: PoolWindow) -> dict[str, Pair | tuple[int, ...]]:
    return {"kernel_shape": w.kernel, "strides": w.stride, "pads": w.begin + w.end}


def plane(g: OnnxGraph, x: str) -> Pair:
    """Return the height and width of an ONNX value N×C×H×W."""
    high, wide = g.shape(x)[2:]
    return high, wide


def _pad_onnx(g: OnnxGraph, x: str, begin: Pair, end: Pair, value: float) -> str:
    pads = [0, 0, *begin, 0, 0, *end]
    return g.op("Pad", x, g.const(pads, "pads"), g.const(value, "value")) if any(pads) else x


def _mask_onnx(g: OnnxGraph, indices: str, size: Pair, begin: Pair, end: Pair) -> str:
    """Turn MaxPool's places, counted over the whole padded blob, into places in the image's own plane."""
    import numpy as np

    table = np.full((begin[0] + size[0] + end[0], begin[1] + size[1] + end[1]), -1, dtype="float32")
    inside = np.arange(size[0] * size[1], dtype="float32").reshape(size)
    table[begin[0] : begin[0] + size[0], begin[1] : begin[1] + size[1]] = inside
    place = g.op("Mod", indices, g.const([table.size], "plane"))
    return g.op("Cast", place, to=1) if table.size == inside.size else g.op("Gather", table.reshape(-1), place)
