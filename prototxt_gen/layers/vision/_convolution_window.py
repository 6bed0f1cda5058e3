"""Kernel, stride, padding and dilation of Convolution, Deconvolution, Im2col and other types with convolution_param."""

from __future__ import annotations

from typing import NamedTuple

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.schema.caffe_proto import ENGINES, FillerParameter
from prototxt_gen.schema.message import Message, boolean, enum, int32, message, repeated, uint32


class ConvolutionParameter(Message, field="convolution_param", number=106):
    """Fields from `pad_l` on belong to forks.

    Numbers from 1000 are this project's, where BVLC Caffe uses the fork's number for another field.
    """

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
    """Fields of Synopsys: padding on the left, right, top and bottom, instead of `pad`."""
    pad_r = int32(27)
    pad_t = int32(28)
    pad_b = int32(29)
    dilation_h = uint32(1017)
    """Fields of yjxiong/caffe, where they are 17 and 18 and `dilation` is 16."""
    dilation_w = uint32(1018)
    hole = uint32(1019)
    """Fields of DeepLab v1, where they are 17, 18 and 19: dilation under its first name."""
    hole_h = uint32(1020)
    hole_w = uint32(1021)

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilation as it is given, in any of its names: of both axes, of each axis, or not at all."""
        for stem in ("dilation", "hole"):
            if self.has(f"{stem}_h") or self.has(f"{stem}_w"):
                return (getattr(self, f"{stem}_h"), getattr(self, f"{stem}_w"))
        return self.dilation or ((self.hole,) if self.has("hole") else ())


DILATION_FIELDS = ("dilation_h", "dilation_w", "hole", "hole_h", "hole_w")
"""Names of the dilation in forks."""


class Window(NamedTuple):
    """Kernel, stride, padding and dilation, one number for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    end: tuple[int, ...]
    """Padding after the image. Equal to `pad`, except for the forks' pad_l, pad_r, pad_t and pad_b."""

    @property
    def extent(self) -> tuple[int, ...]:
        """Number of pixels that the dilated kernel spans on each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def output_size(self, spatial: Shape) -> Shape:
        """Return the number of positions of the kernel along each axis: the size of the top."""
        sizes = zip(spatial, self.pad, self.end, self.extent, self.stride, strict=True)
        travels = ((size + pad + end - extent, stride) for size, pad, end, extent, stride in sizes)
        # C++ division rounds towards 0, so a kernel that is too large by less than a stride still has one position
        return tuple((travel // stride if travel >= 0 else -(-travel // stride)) + 1 for travel, stride in travels)

    def with_padding_for_kernel(self, spatial: Shape) -> Window:
        """Return the window with enough padding at the end that no kernel position reaches beyond it."""
        sizes = zip(spatial, self.pad, self.end, self.extent, strict=True)
        return self._replace(end=tuple(max(end, extent - size - pad) for size, pad, end, extent in sizes))

    def torch_padding(self, sign: int = 1) -> tuple[int, ...]:
        """Return the padding for torch.nn.functional.pad, times `sign`.

        It is the begin and the end of each axis, with the last axis first.
        """
        pairs = zip(reversed(self.pad), reversed(self.end), strict=True)
        return tuple(sign * side for pair in pairs for side in pair)


def _per_axis(layer: Layer, p: ConvolutionParameter, name: str, axes: int, default: int | None) -> tuple[int, ...]:
    """Return a field as one number for each spatial axis. Raises NetError if it is missing or in a wrong form.

    Source: src/caffe/layers/base_conv_layer.cpp BaseConvolutionLayer::LayerSetUp.
    """
    stem = name.split("_")[0]
    values: tuple[int, ...] = getattr(p, name)
    if p.has(f"{stem}_h") or p.has(f"{stem}_w"):
        if axes != 2 or values:
            raise layer.error(f"{stem}_h and {stem}_w need two spatial axes and no {name}")
        return (getattr(p, f"{stem}_h"), getattr(p, f"{stem}_w"))
    if not values and default is None and axes:
        raise layer.error(f"it needs {name}, or {stem}_h and {stem}_w")
    if len(values) not in (0, 1, axes):
        raise layer.error(f"it has {len(values)} {name}; it needs one, or one for each of {axes} spatial axes")
    return values if len(values) == axes else (values or (default or 0,)) * axes


def window(layer: Layer, bottom: Shape) -> Window:
    """Return the window of a layer with convolution_param over a bottom. Raises NetError if it is not valid."""
    p = layer.get(ConvolutionParameter)
    axes = len(bottom) - channel_axis(layer, bottom) - 1
    pad, end = _pads(layer, p, axes)
    result = Window(
        _per_axis(layer, p, "kernel_size", axes, None),
        _per_axis(layer, p, "stride", axes, 1),
        pad,
        _dilation(layer, p, axes),
        end,
    )
    if 0 in result.kernel or 0 in result.stride or 0 in result.dilation:
        raise layer.error("kernel, stride and dilation must be at least 1")
    return result


def _dilation(layer: Layer, p: ConvolutionParameter, axes: int) -> tuple[int, ...]:
    """Return the dilation, also under its first name in DeepLab v1, `hole`: k + (k - 1)·(hole - 1) pixels.

    Source of hole: im2col.cpp im2col_cpu and im2col_layer.cpp Im2colLayer::Reshape of DeepLab v1.
    """
    holes = [name for name in ("hole", "hole_h", "hole_w") if p.has(name)]
    if not holes:
        return _per_axis(layer, p, "dilation", axes, 1)
    if layer.type not in ("Convolution", "Im2col"):
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): {holes[0]} is supported only in Convolution")
    if p.dilation or p.has("dilation_h") or p.has("dilation_w"):
        raise layer.error(f"it has dilation and {holes[0]}, two names of one field")
    if (len(holes) > 1 and (axes != 2 or holes != ["hole_h", "hole_w"])) or holes in (["hole_h"], ["hole_w"]):
        raise layer.error("it needs hole, or hole_h and hole_w for two spatial axes")
    return p.dilations if len(p.dilations) == axes else p.dilations * axes


def _pads(layer: Layer, p: ConvolutionParameter, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding before and after the image.

    pad_l, pad_r, pad_t and pad_b count unless all four are 0. Source: synopsys-caffe
    src/caffe/layers/base_conv_layer.cpp.
    """
    plain, sides = _per_axis(layer, p, "pad", axes, 0), (p.pad_t, p.pad_l, p.pad_b, p.pad_r)
    if not any(sides):
        return plain, plain
    if axes != 2 or p.pad or p.pad_h or p.pad_w:
        raise layer.error("pad_l, pad_r, pad_t and pad_b need two spatial axes and no pad")
    if min(sides) < 0:
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): negative padding is not supported")
    return sides[:2], sides[2:]


def channel_axis(layer: Layer, bottom: Shape) -> int:
    """Return the axis of the channels, counted from 0."""
    axis = layer.get(ConvolutionParameter).axis
    if not -len(bottom) <= axis < len(bottom):
        raise layer.error(f"axis {axis} is not an axis of its bottom {show(bottom)}")
    return axis % len(bottom)
