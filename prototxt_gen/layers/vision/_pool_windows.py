"""Windows of Pooling and SPP: their number, their position, and the same pooling in PyTorch and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

Pair = tuple[int, int]
"""A number for the height and one for the width."""
LOWEST = -3.4028234663852886e38
"""-FLT_MAX: the initial value of Caffe's maximum, and so the top of a window without a pixel."""


class PoolWindow(NamedTuple):
    """A window that slides over a padded image. Only forks have an `end` other than `begin`, or a `dilation`."""

    kernel: Pair
    stride: Pair = (1, 1)
    begin: Pair = (0, 0)
    end: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = True
    pads_count: bool = True
    """Whether the divisor of an average includes the window's pixels in the padding."""

    @property
    def extent(self) -> Pair:
        """Number of pixels that the dilated kernel spans on each axis."""
        high, wide = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return high, wide

    @property
    def has_padding(self) -> bool:
        """Whether there is any padding."""
        return any(self.begin + self.end)

    def output_size(self, size: Pair) -> Pair:
        """Return the number of windows along each axis of an image of this size: the size of the top.

        Source: src/caffe/layers/pooling_layer.cpp PoolingLayer::Reshape.
        """
        return self._count(0, size[0]), self._count(1, size[1])

    def _count(self, axis: int, size: int) -> int:
        stride, count = self.stride[axis], self.unclipped_count(axis, size)
        # Caffe drops a last window that would start at or beyond the end of the image, but only if there is padding
        return count - 1 if self.has_padding and (count - 1) * stride >= size + self.begin[axis] else count

    def unclipped_count(self, axis: int, size: int) -> int:
        """Return the number of windows on an axis if none were dropped for starting in the padding."""
        travel, stride = size + self.begin[axis] + self.end[axis] - self.extent[axis], self.stride[axis]
        return (-(-travel // stride) if self.ceil else travel // stride) + 1

    def overhang(self, size: Pair) -> Pair:
        """Return how far the last window reaches beyond the end of the image; negative if it ends before."""
        high, wide = (
            (count - 1) * s + extent - begin - here
            for count, s, extent, begin, here in zip(
                self.output_size(size), self.stride, self.extent, self.begin, size, strict=True
            )
        )
        return high, wide

    def areas(self, size: Pair) -> list[list[int]]:
        """Return the number of pixels of each window, with padding if it counts: the divisors of an average.

        For a window beyond the padding the number is not positive. Source: pooling_layer.cpp PoolingLayer::Forward_cpu,
        pool_size.
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
    def is_regular(self) -> bool:
        """Whether PyTorch and ONNX make the same number of windows on images of any size.

        Otherwise some windows start beyond the image, and some frameworks drop them.
        """
        return not self.ceil or all(s + end <= e for s, end, e in zip(self.stride, self.end, self.extent, strict=True))

    @property
    def trailing(self) -> Pair:
        """Padding at the end with which rounding down gives Caffe's windows on images of any size."""
        if not self.ceil:
            return self.end
        high, wide = (
            min(end + s - 1, e - 1) if self.has_padding else s - 1
            for s, end, e in zip(self.stride, self.end, self.extent, strict=True)
        )
        return high, wide

    def is_torch_pooling(self) -> bool:
        """Whether torch.nn's pooling has the same windows on images of any size."""
        always_clips = (
            self.has_padding or not self.ceil or all(s <= e for s, e in zip(self.stride, self.extent, strict=True))
        )
        fits = all(2 * pad <= kernel for pad, kernel in zip(self.begin, self.kernel, strict=True))
        return self.begin == self.end and always_clips and fits and (self.pads_count or not self.has_padding)


def torch_pool_module(average: bool, w: PoolWindow) -> nn.Module:
    """Return torch.nn's pooling for a window for which `is_torch_pooling` is true."""
    from torch import nn

    if average:
        return nn.AvgPool2d(w.kernel, w.stride, w.begin, ceil_mode=w.ceil)
    return nn.MaxPool2d(w.kernel, w.stride, w.begin, w.dilation, ceil_mode=w.ceil)


def window_module(average: bool, window_at: Callable[[Pair], PoolWindow], masked: bool = False) -> nn.Module:
    """Return a module that pools with the window that `window_at` returns for the size of the image.

    With `masked` its second output is the mask of the maxima.
    """
    from torch import nn

    class WindowPool(nn.Module):
        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            w = window_at((x.shape[2], x.shape[3]))
            if average:
                return average_pool(x, w)
            top, mask = max_pool(x, w)
            return (top, mask) if masked else top

    return WindowPool()


def _pad_for_windows(x: Tensor, w: PoolWindow, value: float) -> Tensor:
    """Pad the image so that every window is inside."""
    from torch.nn import functional

    below, right = w.trailing
    return functional.pad(x, (w.begin[1], right, w.begin[0], below), value=value)


def average_pool(x: Tensor, w: PoolWindow) -> Tensor:
    """Return Caffe's average of each window over N×C×H×W."""
    from torch.nn import functional

    areas = x.new_tensor(w.areas((x.shape[2], x.shape[3])))
    return functional.avg_pool2d(_pad_for_windows(x, w, 0.0), w.kernel, w.stride, divisor_override=1) / areas


def max_pool(x: Tensor, w: PoolWindow) -> tuple[Tensor, Tensor]:
    """Return Caffe's maximum of each window over N×C×H×W, and its position h·W + w as a float.

    The position is -1 if the window has no pixel.
    """
    import torch
    from torch.nn import functional

    high, wide = x.shape[2:]
    widened = _pad_for_windows(x, w, LOWEST)
    top, place = functional.max_pool2d(widened, w.kernel, w.stride, 0, w.dilation, return_indices=True)
    rows = torch.div(place, widened.shape[3], rounding_mode="floor") - w.begin[0]
    columns = place % widened.shape[3] - w.begin[1]
    inside = (rows >= 0) & (rows < high) & (columns >= 0) & (columns < wide)
    return top, torch.where(inside, rows * wide + columns, -1).to(x.dtype)


def average_onnx(g: OnnxGraph, x: str, w: PoolWindow) -> str:
    """Write Caffe's average as AveragePool; where ONNX's divisor differs, multiply by a correction."""
    import numpy as np

    rounds = w.ceil and w.stride != (1, 1)
    if w.pads_count and w.is_regular and not rounds:
        return g.op("AveragePool", x, count_include_pad=1, **_attributes(w))
    inside = w._replace(begin=(0, 0), end=(0, 0))
    if w.pads_count and w.is_regular:
        # Caffe's divisor: padding that is now part of the image counts, pixels beyond it do not
        padded = _pad_onnx(g, x, w.begin, w.end, 0.0)
        return g.op("AveragePool", padded, ceil_mode=1, **_attributes(inside))
    padded = _pad_onnx(g, x, w.begin, w.trailing, 0.0)
    mean = g.op("AveragePool", padded, **_attributes(inside))
    with np.errstate(divide="ignore"):
        correction = np.float32(w.kernel[0] * w.kernel[1]) / np.asarray(w.areas(height_width(g, x)), dtype="float32")
    return g.op("Mul", mean, correction)


def max_onnx(g: OnnxGraph, x: str, w: PoolWindow, masked: bool) -> str | tuple[str, str]:
    """Write Caffe's maximum as MaxPool, with the mask if `masked`."""
    size = height_width(g, x)
    outputs = 2 if masked else 1
    if w.is_regular:
        tops = g.ops("MaxPool", x, outputs=outputs, ceil_mode=int(w.ceil), dilations=w.dilation, **_attributes(w))
        return (tops[0], _mask_onnx(g, tops[1], size, (0, 0), (0, 0))) if masked else tops[0]
    padded = _pad_onnx(g, x, w.begin, w.trailing, LOWEST)
    inside = w._replace(begin=(0, 0), end=(0, 0))
    tops = g.ops("MaxPool", padded, outputs=outputs, dilations=w.dilation, **_attributes(inside))
    return (tops[0], _mask_onnx(g, tops[1], size, w.begin, w.trailing)) if masked else tops[0]


def _attributes(w: PoolWindow) -> dict[str, Pair | tuple[int, ...]]:
    return {"kernel_shape": w.kernel, "strides": w.stride, "pads": w.begin + w.end}


def height_width(g: OnnxGraph, x: str) -> Pair:
    """Return the height and width of an ONNX value N×C×H×W."""
    high, wide = g.shape(x)[2:]
    return high, wide


def _pad_onnx(g: OnnxGraph, x: str, begin: Pair, end: Pair, value: float) -> str:
    pads = [0, 0, *begin, 0, 0, *end]
    return g.op("Pad", x, g.const(pads, "pads"), g.const(value, "value")) if any(pads) else x


def _mask_onnx(g: OnnxGraph, indices: str, size: Pair, begin: Pair, end: Pair) -> str:
    """Convert MaxPool's positions, counted over the whole padded blob, to positions in the image's own channel."""
    import numpy as np

    table = np.full((begin[0] + size[0] + end[0], begin[1] + size[1] + end[1]), -1, dtype="float32")
    inside = np.arange(size[0] * size[1], dtype="float32").reshape(size)
    table[begin[0] : begin[0] + size[0], begin[1] : begin[1] + size[1]] = inside
    place = g.op("Mod", indices, g.const([table.size], "plane"))
    return g.op("Cast", place, to=1) if table.size == inside.size else g.op("Gather", table.reshape(-1), place)
