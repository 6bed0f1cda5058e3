"""Layer type Pooling: maximum, average or random choice in sliding windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_wrong_in_place
from prototxt_gen.layers.base import Arity, LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._pool_windows import (
    Pair,
    PoolWindow,
    average_onnx,
    height_width,
    max_onnx,
    torch_pool_module,
    window_module,
)
from prototxt_gen.schema.caffe_proto import ENGINES
from prototxt_gen.schema.message import Message, boolean, enum, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class PoolingParameter(Message, field="pooling_param", number=121):
    """Fields from `ceil_mode` on belong to forks.

    Numbers from 1000 are this project's, where BVLC Caffe uses the fork's number for another field.
    """

    pool = enum(1, "MAX", "AVE", "STOCHASTIC", "AVE_EXC_PAD", AVE_TF=3)
    """`AVE_EXC_PAD`, formerly `AVE_TF`, is Synopsys's: an average that does not count the padding."""
    pad = uint32(4)
    pad_h = uint32(9)
    pad_w = uint32(10)
    kernel_size = uint32(2)
    kernel_h = uint32(5)
    kernel_w = uint32(6)
    stride = uint32(3, 1)
    stride_h = uint32(7)
    stride_w = uint32(8)
    engine = enum(11, *ENGINES)
    global_pooling = boolean(12)
    round_mode = enum(13, "CEIL", "FLOOR")
    ceil_mode = boolean(14, True)
    """Field of Synopsys (14), brocolli-caffe (13) and others; `round_mode` has priority."""
    pad_l = uint32(16)
    """Fields of Synopsys: padding on the left, right, top and bottom, instead of `pad`."""
    pad_r = uint32(17)
    pad_t = uint32(18)
    pad_b = uint32(19)
    pad_type = uint32(1013)
    """Field of Synopsys (13): 1 is TensorFlow's SAME."""
    dilation = uint32(1018, 1)
    """Field of naibaf7/caffe."""


AVERAGES_WITHOUT_PADDING = ("AVE_EXC_PAD", "AVE_TF")
AVERAGES = ("AVE", *AVERAGES_WITHOUT_PADDING)


def pool_window(layer: Layer, size: Pair) -> PoolWindow:
    """Return the window of a pooling layer over an image of this size. Raises NetError if it is not valid.

    Source: src/caffe/layers/pooling_layer.cpp PoolingLayer::LayerSetUp; for the forks' fields
        foss-for-synopsys-dwc-arc-processors/synopsys-caffe, the same function, and Forward_cpu (SAME).
    """
    p = layer.get(PoolingParameter)
    kernel, stride = _kernel(layer, p, size), _pair(layer, p, "stride")
    if 0 in kernel or 0 in stride:
        raise layer.error("kernel and stride must be at least 1")
    begin, end = _pads(layer, p, size, kernel, stride)
    if p.global_pooling and (any(begin + end) or stride != (1, 1)):
        raise layer.error("with global_pooling, pad must be 0 and stride 1")
    if any(begin + end) and p.pool == "STOCHASTIC":
        raise layer.error("only MAX and AVE can have padding")
    if any(b >= k or e >= k for b, e, k in zip(begin, end, kernel, strict=True)):
        raise layer.error(f"pad must be smaller than the kernel, {kernel[0]}x{kernel[1]}")
    ceil = p.round_mode == "CEIL" if p.has("round_mode") else p.ceil_mode
    ceil, pads_count = ceil and p.pad_type == 0, p.pool not in AVERAGES_WITHOUT_PADDING
    result = PoolWindow(kernel, stride, begin, end, (p.dilation, p.dilation), ceil, pads_count)
    return result if p.dilation == 1 else _check_dilation(layer, p, result, size)


def _kernel(layer: Layer, p: PoolingParameter, size: Pair) -> Pair:
    """Return the size of the kernel; with global_pooling that of the image."""
    both = p.has("kernel_h") and p.has("kernel_w")
    if p.global_pooling:
        if p.has("kernel_size") or p.has("kernel_h") or p.has("kernel_w"):
            raise layer.error("with global_pooling, the kernel has the size of the bottom and must not be given")
        return size
    if p.has("kernel_size") == both:
        raise layer.error("it needs either kernel_size, or kernel_h and kernel_w")
    return (p.kernel_h, p.kernel_w) if both else (p.kernel_size, p.kernel_size)


def _pair(layer: Layer, p: PoolingParameter, name: str) -> Pair:
    """Return a field that is given either once or as _h and _w."""
    high, wide = f"{name}_h", f"{name}_w"
    if not (p.has(high) or p.has(wide)):
        return (getattr(p, name), getattr(p, name))
    if p.has(name) or not (p.has(high) and p.has(wide)):
        raise layer.error(f"it needs either {name}, or {high} and {wide}")
    return (getattr(p, high), getattr(p, wide))


def _pads(layer: Layer, p: PoolingParameter, size: Pair, kernel: Pair, stride: Pair) -> tuple[Pair, Pair]:
    """Return the padding before and after the image."""
    plain, sides = _pair(layer, p, "pad"), (p.pad_t, p.pad_l, p.pad_b, p.pad_r)
    given = any(p.has(name) for name in ("pad", "pad_h", "pad_w"))
    if given + any(sides) + p.has("pad_type") > 1:
        raise layer.error("only one of pad, pad_type, and pad_l, pad_r, pad_t, pad_b is allowed")
    if p.pad_type == 1:
        # SAME: ceil(size / stride) windows; an odd pixel of padding is at the end
        total = [max(0, k - (here % s or s)) for here, k, s in zip(size, kernel, stride, strict=True)]
        begin = (total[0] // 2, total[1] // 2)
        return begin, (total[0] - begin[0], total[1] - begin[1])
    if p.pad_type:
        raise layer.error(f"pad_type must be 0 or 1, not {p.pad_type}")
    return (sides[:2], sides[2:]) if any(sides) else (plain, plain)


def _check_dilation(layer: Layer, p: PoolingParameter, w: PoolWindow, size: Pair) -> PoolWindow:
    """Return the window if its dilation has only one possible meaning; else raise UnsupportedError.

    That is a maximum over dilated windows that are all inside the image.
    """
    if p.pool != "MAX" or p.dilation < 1 or w.has_padding or any(w.overhang(size)):
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): dilation is supported only for MAX pooling without padding whose "
            "windows end exactly at the end of the image"
        )
    return w


class Pooling(LayerType):
    """Compute the maximum, the average, or a random element in proportion to the values, of each sliding window.

    Source: src/caffe/layers/pooling_layer.cpp PoolingLayer, pooling_layer.cu for STOCHASTIC.
    Shape: N×C×H×W → N×C×…, with sizes ceil((in + 2·pad - kernel) / stride) + 1, one less if there is padding and the
        last window would start at or beyond in + pad. A second top of MAX holds the position h·W + w of each maximum.
    Blobs: none.
    Differs: without padding Caffe drops no window, even if it starts beyond the image; its maximum is then -FLT_MAX and
        its mask -1. AVE divides by the size of the window clipped to the padded image. Caffe's maximum skips NaN, and
        is -FLT_MAX if all elements are minus infinity; PyTorch returns NaN and minus infinity; ONNX does not define
        NaN.
    """

    type = "Pooling"
    params = (PoolingParameter,)
    tops = Arity(1, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,) = bottoms
        refuse_wrong_in_place(layer)
        if len(bottom) != 4:
            raise layer.error(f"it needs a bottom with 4 axes, not {show(bottom)}")
        if len(layer.tops) > 1 and layer.get(PoolingParameter).pool != "MAX":
            raise layer.error("only MAX has a second top, the mask")
        counts = pool_window(layer, (bottom[2], bottom[3])).output_size((bottom[2], bottom[3]))
        if min(counts) < 1:
            raise layer.error(f"its window is larger than the padded bottom {show(bottom)}")
        return [(*bottom[:2], *counts)] * len(layer.tops)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p, masked = layer.get(PoolingParameter), len(layer.tops) > 1
        average, size = p.pool in AVERAGES, (bottoms[0][2], bottoms[0][3])
        w = pool_window(layer, size)
        if p.pool == "STOCHASTIC":
            return stochastic_module(lambda size: pool_window(layer, size))
        if p.global_pooling and not masked:
            return nn.AdaptiveAvgPool2d(1) if average else nn.AdaptiveMaxPool2d(1)
        if w.is_torch_pooling() and not masked and not p.pad_type:
            return torch_pool_module(average, w)
        return window_module(average, lambda size: pool_window(layer, size), masked)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,) = bottoms
        p, masked = layer.get(PoolingParameter), len(layer.tops) > 1
        if p.pool == "STOCHASTIC":
            return stochastic_onnx(g, x, pool_window(layer, height_width(g, x)))
        if p.global_pooling and not masked:
            return g.op("GlobalAveragePool" if p.pool in AVERAGES else "GlobalMaxPool", x)
        w = pool_window(layer, height_width(g, x))
        return average_onnx(g, x, w) if p.pool in AVERAGES else max_onnx(g, x, w, masked)

    examples = (
        Example("max", ((2, 3, 6, 6),), "pooling_param { kernel_size: 2 stride: 2 }"),
        Example("max, last windows cut", ((1, 2, 6, 7),), "pooling_param { kernel_size: 3 stride: 2 }"),
        Example("max, padded", ((1, 2, 7, 6),), "pooling_param { kernel_size: 3 stride: 2 pad: 1 }"),
        Example("max, last windows dropped", ((1, 2, 5, 3),), "pooling_param { kernel_size: 2 stride: 2 pad: 1 }"),
        Example("max, padded by more than half", ((1, 2, 5, 5),), "pooling_param { kernel_size: 3 stride: 2 pad: 2 }"),
        Example(
            "max, oblong",
            ((1, 2, 8, 7),),
            "pooling_param { kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0 }",
        ),
        Example(
            "max, a window beyond the image",
            ((1, 2, 6, 9),),
            "pooling_param { kernel_size: 1 stride: 4 }",
            gradients=False,
        ),
        Example("max, kernel larger than the bottom", ((1, 2, 2, 4),), "pooling_param { kernel_size: 3 stride: 2 }"),
        Example("max, global", ((2, 3, 4, 5),), "pooling_param { global_pooling: true }"),
        Example("mask", ((2, 2, 5, 6),), "pooling_param { kernel_size: 2 stride: 2 }", 2),
        Example("mask, padded", ((2, 2, 5, 5),), "pooling_param { kernel_size: 3 stride: 2 pad: 1 }", 2),
        Example("mask, dropped windows", ((1, 2, 5, 3),), "pooling_param { kernel_size: 2 stride: 2 pad: 1 }", 2),
        Example(
            "mask, a window beyond the image",
            ((2, 2, 6, 9),),
            "pooling_param { kernel_size: 1 stride: 4 }",
            2,
            gradients=False,
        ),
        Example("mask, global", ((2, 2, 3, 4),), "pooling_param { global_pooling: true }", 2),
        Example("average", ((2, 3, 6, 6),), "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"),
        Example("average, cut", ((1, 2, 6, 7),), "pooling_param { pool: AVE kernel_size: 3 stride: 2 }"),
        Example("average, padded", ((1, 2, 5, 5),), "pooling_param { pool: AVE kernel_size: 3 pad: 1 }"),
        Example("average, padded, cut", ((1, 2, 6, 7),), "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
        Example("average, dropped", ((1, 2, 5, 3),), "pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 }"),
        Example("average, wide pad", ((1, 2, 5, 6),), "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 2 }"),
        Example("average, beyond", ((1, 2, 6, 9),), "pooling_param { pool: AVE kernel_size: 1 stride: 4 }"),
        Example("average, of nothing", ((1, 1, 4, 9),), "pooling_param { pool: AVE kernel_size: 1 stride: 4 }"),
        Example("average, global", ((2, 3, 4, 5),), "pooling_param { pool: AVE global_pooling: true }"),
        Example("ceil_mode false", ((1, 2, 6, 7),), "pooling_param { kernel_size: 3 stride: 2 ceil_mode: false }"),
        Example("ceil_mode true", ((1, 2, 6, 7),), "pooling_param { kernel_size: 3 stride: 2 ceil_mode: true }"),
        Example("floor", ((1, 2, 6, 7),), "pooling_param { kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR }"),
        Example(
            "average, floor", ((1, 2, 6, 7),), "pooling_param { pool: AVE kernel_size: 3 stride: 2 round_mode: FLOOR }"
        ),
    )


def stochastic_module(window_at: Any) -> nn.Module:
    """Return stochastic pooling; the values should not be negative.

    In training it draws an element of the window in proportion to its value; otherwise it returns the expected value.

    Source: src/caffe/layers/pooling_layer.cu StoPoolForwardTrain, StoPoolForwardTest.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class StochasticPool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            size = (x.shape[2], x.shape[3])
            w: PoolWindow = window_at(size)
            below, right = w.trailing
            columns = functional.unfold(functional.pad(x, (0, right, 0, below)), w.kernel, stride=w.stride)
            pixels = columns.view(*x.shape[:2], w.kernel[0] * w.kernel[1], *w.output_size(size))
            return self.draw(pixels) if self.training else self.expected(pixels)

        def draw(self, pixels: Tensor) -> Tensor:
            sums = pixels.cumsum(2)
            threshold = torch.rand_like(sums[:, :, -1:]) * sums[:, :, -1:]
            drawn = (sums >= threshold).to(torch.uint8).argmax(2, keepdim=True)
            return pixels.gather(2, drawn).squeeze(2)

        def expected(self, pixels: Tensor) -> Tensor:
            total = pixels.sum(2)
            positive = total > 0
            return torch.where(positive, pixels.square().sum(2) / torch.where(positive, total, 1.0), 0.0)

    return StochasticPool()


def stochastic_onnx(g: OnnxGraph, x: str, w: PoolWindow) -> str:
    """Write the expected value: the sum of squares divided by the sum, or 0 if the sum is not positive."""
    squares = average_onnx(g, op_with_shape_of(g, x, "Mul", x, x), w)
    means = average_onnx(g, x, w)
    positive = g.op("Greater", means, g.const(0.0, "zero"))
    divisor = g.op("Where", positive, means, g.const(1.0, "one"))
    return g.op("Where", positive, g.op("Div", squares, divisor), g.const(0.0, "zero"))


def op_with_shape_of(g: OnnxGraph, x: str, kind: str, *inputs: str) -> str:
    """Add a node whose output has the shape of `x`, and record that shape."""
    output = g.op(kind, *inputs)
    g.set_shape(output, g.shape(x))
    return output
