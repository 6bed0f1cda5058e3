"""Layer type Interp (PSPNet and other forks): bilinear resizing with aligned corners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, LayerType, show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

_FACTORS = ("zoom_factor", "shrink_factor", "full_zoom_factor")
_TO_THE_END = 2**31 - 1


class InterpParameter(Message, field="interp_param", number=147):
    """The number is that of buptwangfei/caffe; PSPNet has 143, senlinuc/caffe_ocr 162, Synopsys 163."""

    height = int32(1)
    width = int32(2)
    zoom_factor = int32(3, 1)
    shrink_factor = int32(4, 1)
    pad_beg = int32(5)
    pad_end = int32(6)
    full_zoom_factor = int32(7, 1)
    """Field of Synopsys."""


def enlarged_size(p: InterpParameter, size: int, explicit: int) -> int:
    """Return the size of the top along an axis, given the size after cropping and the field height or width.

    Source: hszhao/PSPNet src/caffe/layers/interp_layer.cpp InterpLayer::Reshape.
    """
    zoom, shrink = p.has("zoom_factor"), p.has("shrink_factor")
    if zoom == shrink and p.has("height") and p.has("width"):
        return explicit
    if zoom or shrink:
        shrunk = (size - 1) // p.shrink_factor + 1
        return shrunk + (shrunk - 1) * (p.zoom_factor - 1)
    return size * p.full_zoom_factor


class Interp(LayerType):
    """Resize the bottom by bilinear interpolation with aligned corners, after an optional crop.

    Source: buptwangfei/caffe src/caffe/layers/interp.cpp InterpLayer, src/caffe/util/interp.cpp caffe_cpu_interp2;
        hszhao/PSPNet src/caffe/layers/interp_layer.cpp.
    Shape: N×C×H×W → N×C×H'×W'. The size is the first of these that is given: that of the second bottom; shrink_factor s
        alone, (in - 1) / s + 1, or zoom_factor z alone, in + (in - 1)·(z - 1); height and width; shrink_factor, then
        zoom_factor.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX with align_corners. buptwangfei/caffe refuses several ways to give the
        size at once, PSPNet refuses a second bottom; here each is accepted as in the other fork.
    """

    type = "Interp"
    params = (InterpParameter,)
    bottoms = Arity(1, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        first = bottoms[0]
        if any(len(bottom) != 4 for bottom in bottoms):
            raise layer.error(f"it needs bottoms with 4 axes, not {show_all(bottoms)}")
        self._check(layer)
        p = layer.get(InterpParameter)
        inside = [size + p.pad_beg + p.pad_end for size in first[2:]]
        if min(inside) < 1:
            raise layer.error(f"cropping leaves nothing of its bottom {show(first)}")
        explicit = (p.height, p.width)
        top = bottoms[1][2:] if len(bottoms) == 2 else tuple(map(enlarged_size, (p, p), inside, explicit))
        if min(top) < 1:
            raise layer.error(f"its top would have size {show(top)}")
        return [(*first[:2], *top)]

    def _check(self, layer: Layer) -> None:
        p = layer.get(InterpParameter)
        given = [name for name in _FACTORS if p.has(name)]
        sized = p.has("height") and p.has("width")
        if len(layer.bottoms) == 2 and (given or sized):
            raise layer.error("its size comes from the second bottom and must not be given as well")
        if len(layer.bottoms) == 1 and not (given or sized):
            raise layer.error("it needs zoom_factor, shrink_factor, height and width, or a second bottom")
        if p.has("full_zoom_factor") and (len(given) > 1 or sized):
            raise layer.error("with full_zoom_factor the size must not be given in another way")
        if min(p.zoom_factor, p.shrink_factor, p.full_zoom_factor) < 1:
            raise layer.error("zoom_factor, shrink_factor and full_zoom_factor must be at least 1")
        if max(p.pad_beg, p.pad_end) > 0:
            raise layer.error("pad_beg and pad_end can only crop: they must not be positive")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn
        from torch.nn import functional

        p = layer.get(InterpParameter)
        begin, end = -p.pad_beg, p.pad_end or None
        if not begin and not end and len(bottoms) == 1 and not any(p.has(name) for name in _FACTORS):
            return nn.Upsample((p.height, p.width), mode="bilinear", align_corners=True)

        class Interpolate(nn.Module):
            def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
                x = x[:, :, begin:end, begin:end]
                size = self.size(x) if like is None else like.shape[2:]
                return functional.interpolate(x, size, mode="bilinear", align_corners=True)

            def size(self, x: Tensor) -> tuple[int, int]:
                return enlarged_size(p, x.shape[2], p.height), enlarged_size(p, x.shape[3], p.width)

        return Interpolate()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, x = layer.get(InterpParameter), bottoms[0]
        if p.pad_beg or p.pad_end:
            ends = [p.pad_end or _TO_THE_END] * 2
            x = g.op("Slice", x, g.const([-p.pad_beg] * 2), g.const(ends), g.const([2, 3]))
        if len(bottoms) == 2:
            sizes = g.op("Shape", bottoms[1], start=2, end=4)
        else:
            (top,) = self.shapes(layer, [g.shape(bottoms[0])])
            sizes = g.const(top[2:], "sizes")
        options = {"mode": "linear", "coordinate_transformation_mode": "align_corners", "axes": (2, 3)}
        return g.op("Resize", x, None, None, sizes, **options)

    examples = (
        Example("height and width", ((2, 2, 4, 5),), "interp_param { height: 7 width: 9 }"),
        Example("smaller", ((1, 2, 9, 8),), "interp_param { height: 4 width: 3 }"),
        Example("the same", ((1, 2, 3, 4),), "interp_param { height: 3 width: 4 }"),
        Example("to one pixel", ((1, 2, 3, 4),), "interp_param { height: 1 width: 1 }"),
        Example("from one pixel", ((1, 2, 1, 1),), "interp_param { height: 3 width: 4 }"),
        Example("zoom", ((1, 2, 3, 4),), "interp_param { zoom_factor: 3 }"),
        Example("shrink", ((1, 2, 8, 9),), "interp_param { shrink_factor: 3 }"),
        Example("like the second", ((2, 2, 3, 4), (2, 1, 6, 5))),
        Example("cropped", ((1, 2, 7, 8),), "interp_param { height: 6 width: 6 pad_beg: -1 pad_end: -2 }"),
        Example("cropped at the beginning", ((1, 2, 7, 8),), "interp_param { zoom_factor: 2 pad_beg: -2 }"),
    )
