"""Layer type Upsample: unpooling by a mask (SegNet, ENet), or repeated pixels (brocolli-caffe)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._pixel_repetition import repeat_module, repeat_onnx, repeated_shape
from prototxt_gen.layers.vision._unpooling import check_mask, unpool_module, unpool_onnx
from prototxt_gen.schema.message import Message, boolean, int32, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


_SEGNET = ("scale_h", "scale_w", "pad_out_h", "pad_out_w", "upsample_h", "upsample_w")


class UpsampleParameter(Message, field="upsample_param", number=500):
    """The number is that of brocolli-caffe; SegNet has 137, Synopsys 177. All fields but the last are SegNet's."""

    scale = uint32(1)
    scale_h = uint32(2)
    scale_w = uint32(3)
    pad_out_h = boolean(4)
    pad_out_w = boolean(5)
    upsample_h = uint32(6)
    upsample_w = uint32(7)
    dims_num = int32(1002, 4)
    """Field of brocolli-caffe (2, which is another field in SegNet): 3 means that only the last axis is enlarged."""


class Upsample(LayerType):
    """Unpool by the mask of a Pooling layer if there are two bottoms; repeat each pixel if there is one.

    Source: alexgkendall/caffe-segnet src/caffe/layers/upsample_layer.cpp UpsampleLayer; for one bottom brocolli-caffe
        9.0.2, the same file and class.
    Shape: unpooling: bottom and mask N×C×H×W → N×C×upsample_h×upsample_w, or in·scale, minus one with pad_out_h or
        pad_out_w. Repetition: N×C×H×W → N×C×in·scale.
    Blobs: none.
    Differs: PyTorch's max_unpool2d and ONNX's MaxUnpool take integer masks, and ONNX's counts over the whole blob; here
        the mask is a float that counts within its own channel.
    """

    type = "Upsample"
    params = (UpsampleParameter,)
    bottoms = Arity(1, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms) == 1:
            return [repeated_shape(bottoms[0], *self._repeats(layer, bottoms[0]))]
        check_mask(layer, bottoms)
        return [(*bottoms[0][:2], *self._unpooled(layer, bottoms[0]))]

    def _repeats(self, layer: Layer, bottom: Shape) -> tuple[int, int]:
        """Return the factor and the number of last axes that are enlarged."""
        p = layer.get(UpsampleParameter)
        if any(p.has(name) for name in _SEGNET):
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): {', '.join(_SEGNET)} need a mask")
        if p.dims_num not in (3, 4) or len(bottom) != p.dims_num:
            raise layer.error(
                f"dims_num {p.dims_num} must be 3 or 4, and the number of axes of its bottom {show(bottom)}"
            )
        scale = p.scale if p.has("scale") else 1
        if scale < 1:
            raise layer.error("scale must be at least 1")
        return scale, p.dims_num - 2

    def _scales(self, layer: Layer) -> tuple[int, int]:
        """Return the scale of the height and of the width."""
        p = layer.get(UpsampleParameter)
        if p.has("scale_h") != p.has("scale_w") or (p.has("scale_h") and p.has("scale")):
            raise layer.error("it needs either scale, or scale_h and scale_w")
        if p.has("scale_h"):
            return p.scale_h, p.scale_w
        scale = p.scale if p.has("scale") else 2
        return scale, scale

    def _unpooled(self, layer: Layer, bottom: Shape) -> tuple[int, int]:
        """Return the height and width of the top. Source: UpsampleLayer::LayerSetUp, Reshape."""
        p = layer.get(UpsampleParameter)
        if p.has("dims_num"):
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): dims_num is not allowed with a mask")
        if p.has("upsample_h") and p.has("upsample_w"):
            if min(p.upsample_h, p.upsample_w) < 2:
                raise layer.error("upsample_h and upsample_w must be greater than 1")
            return p.upsample_h, p.upsample_w
        scales, less = self._scales(layer), (p.pad_out_h, p.pad_out_w)
        if min(scales) < 2 or any(out and scale != 2 for out, scale in zip(less, scales, strict=True)):
            raise layer.error("scale must be greater than 1, and with pad_out_h and pad_out_w it must be 2")
        return bottom[2] * scales[0] - less[0], bottom[3] * scales[1] - less[1]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        p = layer.get(UpsampleParameter)
        if len(bottoms) == 1:
            return repeat_module(*self._repeats(layer, bottoms[0]))
        if p.has("upsample_h") and p.has("upsample_w"):
            return unpool_module((p.upsample_h, p.upsample_w), (1, 1), (0, 0))
        return unpool_module(None, self._scales(layer), (int(p.pad_out_h), int(p.pad_out_w)))

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        shape = g.shape(bottoms[0])
        if len(bottoms) == 2:
            return unpool_onnx(g, bottoms[0], bottoms[1], self._unpooled(layer, shape))
        scale, axes = self._repeats(layer, shape)
        return repeat_onnx(g, bottoms[0], [scale] * axes)

    examples = (
        Example("twice", ((2, 3, 3, 4),), "upsample_param { scale: 2 }", gradients=False),
        Example("five times", ((1, 2, 2, 3),), "upsample_param { scale: 5 }", gradients=False),
        Example("not at all", ((1, 2, 2, 3),), gradients=False),
        Example("last axis", ((2, 3, 4),), "upsample_param { scale: 3 dims_num: 3 }", gradients=False),
    )
