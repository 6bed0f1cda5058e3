"""The window of a convolution: convolution_param as Convolution, Deconvolution, Im2col and their kin read it."""

from __future__ import annotations

from typing import NamedTuple

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.schema.caffe_proto import ENGINES, FillerParameter
from prototxt_gen.schema.message import Message, boolean, enum, int32, message, repeated, uint32


class ConvolutionParameter(Message, field="convolution_param", number=106):
    """Fields from `pad_l` on are forks'. Numbers from 1000 are ours: in the fork's schema, BVLC has the number."""

    num_output = uint32(1)
    bias_term = boolean(2, True)
    pad = repeated(uint32(3))
    kernel_size = repeated(uint32(4))
    stride = repeated(uint32(6))
    dilation = repeated(uint32(18))
    pad_h = uint32(9)
    pad_w = uint32(10)
    kernel_h = uint32(11)
    kernel_w = uint32(12)
    stride_h = uint32(13)
    stride_w = uint32(14)
    group = uint32(5, 1)
    weight_filler = message(7, FillerParameter)
    bias_filler = message(8, FillerParameter)
    engine = enum(15, *ENGINES)
    axis = int32(16, 1)
    force_nd_im2col = boolean(17)
    pad_l = int32(26)
    """Synopsys: left, right, top and bottom, in place of `pad`."""
    pad_r = int32(27)
    pad_t = int32(28)
    pad_b = int32(29)
    dilation_h = uint32(1017)
    """yjxiong/caffe (17 and 18), where `dilation` is 16."""
    dilation_w = uint32(1018)


class Window(NamedTuple):
    """Kernel, stride, pad, dilation, and pad at the end, one number per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    end: tuple[int, ...]
    """Equal to `pad` but for forks' pad_l, pad_r, pad_t, pad_b."""

    @property
    def extent(self) -> tuple[int, ...]:
        """The pixels a dilated kernel spans."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def steps(self, spatial: Shape) -> Shape:
        """Return how many places the kernel takes along each axis of a bottom."""
        sizes = zip(spatial, self.pad, self.end, self.extent, self.stride, strict=True)
        layer_types = ((size + pad + end - extent, stride) for size, pad, end, extent, stride in sizes)
        # C++ rounds towards 0: a kernel too large by less than a stride has one place all the same
        return tuple(
            (layer_type // stride if layer_type >= 0 else -(-layer_type // stride)) + 1
            for layer_type, stride in layer_types
        )

    def widened(self, spatial: Shape) -> Window:
        """Return the window with so much padding at the end that no kernel reaches beyond it."""
        sizes = zip(spatial, self.pad, self.end, self.extent, strict=True)
        return self._replace(end=tuple(max(end, extent - size - pad) for size, pad, end, extent in sizes))

    def around(self, sign: int = 1) -> tuple[int, ...]:
        """Return the padding as torch.nn.functional.pad takes it: the last axis first, begin and end of each."""
        pairs = zip(reversed(self.pad), reversed(self.end), strict=True)
        return tuple(sign * side for pair in pairs for side in pair)


def _per_axis(layer: Layer, p: ConvolutionParameter, name: str, axes: int, default: int | None) -> tuple[int, ...]:
    """Source: src/caffe/layers/base_conv_layer.cpp BaseConvolutionLayer::LayerSetUp."""
    stem = name.split("_")[0]
    many: tuple[int, ...] = getattr(p, name)
    if p.has(f"{stem}_h") or p.has(f"{stem}_w"):
        if axes != 2 or many:
            raise layer.error(f"{stem}_h and {stem}_w are for two spatial axes and replace {name}")
        return (getattr(p, f"{stem}_h"), getattr(p, f"{stem}_w"))
    if not many and default is None and axes:
        raise layer.error(f"it needs {name}, or {stem}_h and {stem}_w")
    if len(many) not in (0, 1, axes):
        raise layer.error(f"{name} is given {len(many)} times; there are {axes} spatial axes")
    return many if len(many) == axes else (many or (default or 0,)) * axes


def window(layer: Layer, bottom: Shape) -> Window:
    """Return the window of a layer with convolution_param over a bottom; NetError where it makes no sense."""
    p = layer.get(ConvolutionParameter)
    axes = len(bottom) - channel_axis(layer, bottom) - 1
    pad, end = _pads(layer, p, axes)
    found = Window(
        _per_axis(layer, p, "kernel_size", axes, None),
        _per_axis(layer, p, "stride", axes, 1),
        pad,
        _per_axis(layer, p, "dilation", axes, 1),
        end,
    )
    if 0 in found.kernel or 0 in found.stride or 0 in found.dilation:
        raise layer.error("kernel, stride and dilation must be at least 1")
    return found


def _pads(layer: Layer, p: ConvolutionParameter, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding before and after the image.

    Source: synopsys-caffe src/caffe/layers/base_conv_layer.cpp, for pad_l, pad_r, pad_t and pad_b; where all four are
    0 they say nothing.
    """
    plain, sides = _per_axis(layer, p, "pad", axes, 0), (p.pad_t, p.pad_l, p.pad_b, p.pad_r)
    if not any(sides):
        return plain, plain
    if axes != 2 or p.pad or p.pad_h or p.pad_w:
        raise layer.error("pad_l, pad_r, pad_t and pad_b are for two spatial axes and replace pad")
    if min(sides) < 0:
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): negative padding is not supported")
    return sides[:2], sides[2:]


def channel_axis(layer: Layer, bottom: Shape) -> int:
    axis = layer.get(ConvolutionParameter).axis
    if not -len(bottom) <= axis < len(bottom):
        raise layer.error(f"axis {axis} is not an axis of its bottom {show(bottom)}")
    return axis % len(bottom)
