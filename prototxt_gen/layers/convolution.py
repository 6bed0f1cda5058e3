"""Convolution, and what Deconvolution, Im2col and the depthwise forks share with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from prototxt_gen.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, BlobSpec, LayerType, per_bottom, show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.message import Message, boolean, enum, int32, message, repeated, uint32
from prototxt_gen.schema import ENGINES, FillerParameter

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from converters.graph import Graph


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
        return tuple((size + pad + end - extent) // stride + 1 for size, pad, end, extent, stride in sizes)

    def around(self, sign: int = 1) -> tuple[int, ...]:
        """Return the padding as torch.nn.functional.pad takes it: the last axis first, begin and end of each."""
        pairs = zip(reversed(self.pad), reversed(self.end), strict=True)
        return tuple(sign * side for pair in pairs for side in pair)

    def around_plane(self, sign: int = 1) -> tuple[int, int, int, int]:
        """Return `around` of two spatial axes: left, right, above, below."""
        left, right, above, below = self.around(sign)
        return left, right, above, below


def _per_axis(layer: Layer, p: ConvolutionParameter, name: str, axes: int, default: int | None) -> tuple[int, ...]:
    """Source: src/caffe/layers/base_conv_layer.cpp BaseConvolutionLayer::LayerSetUp."""
    stem = name.split("_")[0]
    many: tuple[int, ...] = getattr(p, name)
    if p.has(f"{stem}_h") or p.has(f"{stem}_w"):
        if axes != 2 or many:
            raise layer.error(f"{stem}_h and {stem}_w are for two spatial axes and replace {name}")
        return (getattr(p, f"{stem}_h"), getattr(p, f"{stem}_w"))
    if not many and default is None:
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


class ConvolutionBase(LayerType):
    """What layers with convolution_param and learned weights share: a top for each bottom, one set of weights."""

    params = (ConvolutionParameter,)
    bottoms = Arity(1)
    tops = Arity(1)
    same_count = True

    def spatial(self, bottom: Shape, w: Window) -> Shape:
        """Return the spatial sizes of the top for those of the bottom."""
        raise NotImplementedError

    def weight_shape(self, outputs: int, inputs: int, group: int) -> tuple[int, int]:
        raise NotImplementedError

    def outputs(self, layer: Layer, channels: int) -> tuple[int, int]:
        """Return the number of output channels and of groups."""
        p = layer.get(ConvolutionParameter)
        return p.num_output, p.group

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        first, axis = bottoms[0], channel_axis(layer, bottoms[0])
        if any(shape != first for shape in bottoms):
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; it needs equal shapes")
        outputs = self._check_outputs(layer, first[axis])
        spatial = self.spatial(first[axis + 1 :], window(layer, first))
        if any(size < 1 for size in spatial):
            raise layer.error(f"its top would be {show(spatial)} pixels: kernel and pad do not fit {show(first)}")
        return [(*first[:axis], outputs, *spatial)] * len(bottoms)

    def _check_outputs(self, layer: Layer, channels: int) -> int:
        outputs, group = self.outputs(layer, channels)
        if outputs < 1:
            raise layer.error("num_output must be at least 1")
        if group < 1 or channels % group or outputs % group:
            raise layer.error(f"group {group} does not divide {channels} channels and {outputs} outputs")
        return outputs

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(ConvolutionParameter)
        channels = bottoms[0][channel_axis(layer, bottoms[0])]
        outputs, group = self.outputs(layer, channels)
        two = self.weight_shape(outputs, channels, group)
        weight = BlobSpec((*two, *window(layer, bottoms[0]).kernel), p.weight_filler)
        return {"weight": weight} | ({"bias": BlobSpec((outputs,), p.bias_filler)} if p.bias_term else {})

    def torch_args(self, layer: Layer, bottom: Shape) -> dict[str, Any]:
        """The keyword arguments of torch.nn's (transposed) convolutions; no padding where it is uneven."""
        p, w = layer.get(ConvolutionParameter), window(layer, bottom)
        outputs, group = self.outputs(layer, bottom[1])
        return {
            "in_channels": bottom[1],
            "out_channels": outputs,
            "kernel_size": w.kernel,
            "stride": w.stride,
            "padding": w.pad if w.pad == w.end else 0,
            "dilation": w.dilation,
            "groups": group,
            "bias": p.bias_term,
        }

    def load(self, module: nn.Module, blobs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        super().load(learned(module), blobs)

    def dump(self, module: nn.Module, roles: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        return super().dump(learned(module), roles)

    def onnx_attributes(self, layer: Layer, bottom: Shape) -> dict[str, Any]:
        """The attributes of ONNX Conv and ConvTranspose."""
        w = window(layer, bottom)
        return {
            "kernel_shape": w.kernel,
            "strides": w.stride,
            "pads": w.pad + w.end,
            "dilations": w.dilation,
            "group": self.outputs(layer, bottom[1])[1],
        }


def learned(module: nn.Module) -> nn.Module:
    """Return the module, or the one inside it, that holds the weight."""
    return next(inner for inner in module.modules() if "weight" in inner._parameters)


def spatial_rank(layer: Layer, bottom: Shape, at_most: int = 3) -> int:
    """Return the number of spatial axes, or UnsupportedError where no stock convolution fits."""
    rank = len(bottom) - 2
    if channel_axis(layer, bottom) != 1 or not 1 <= rank <= at_most:
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): only convolutions over axis 1 with 1 to {at_most} spatial axes "
            f"can be run here; the bottom is {show(bottom)}"
        )
    return rank


class Convolution(ConvolutionBase):
    """Cross-correlation with learned kernels, in groups, plus a bias.

    Source: src/caffe/layers/conv_layer.cpp ConvolutionLayer::compute_output_shape, base_conv_layer.cpp.
    Shape: N×C×… → N×num_output×floor((in + 2·pad - extent) / stride) + 1.
    Blobs: weight O×(C/group)×k…, bias O.
    Differs: from PyTorch, ONNX: not at all. Every bottom has a top of its own, through the same weights.
    """

    type = "Convolution"

    def spatial(self, bottom: Shape, w: Window) -> Shape:
        return w.steps(bottom)

    def weight_shape(self, outputs: int, inputs: int, group: int) -> tuple[int, int]:
        return (outputs, inputs // group)

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        weight = self.blobs(layer, bottoms)["weight"].shape
        return sum(math.prod(top) * math.prod(weight[1:]) for top in tops)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        rank, w = spatial_rank(layer, bottoms[0]), window(layer, bottoms[0])
        conv: nn.Module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](**self.torch_args(layer, bottoms[0]))
        if w.pad != w.end:
            conv = nn.Sequential(nn.ConstantPad2d(w.around_plane(), 0.0), conv)
        return per_bottom(conv, bottoms)

    def onnx(
        self, g: Graph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        spatial_rank(layer, g.shape(bottoms[0]))
        attributes = self.onnx_attributes(layer, g.shape(bottoms[0]))
        return [g.op("Conv", bottom, *blobs.values(), **attributes) for bottom in bottoms]

    examples: ClassVar[tuple[Example, ...]] = (
        Example("plain", ((2, 3, 7, 6),), "convolution_param { num_output: 4 kernel_size: 3 }"),
        Example(
            "strided, padded, grouped, no bias",
            ((1, 4, 9, 8),),
            "convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2 bias_term: false }",
        ),
        Example(
            "oblong",
            ((1, 2, 8, 9),),
            "convolution_param { num_output: 3 kernel_h: 3 kernel_w: 1 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2 }",
        ),
        Example("dilated", ((1, 2, 11, 11),), "convolution_param { num_output: 3 kernel_size: 3 dilation: 2 pad: 2 }"),
        Example("one axis", ((2, 3, 9),), "convolution_param { num_output: 4 kernel_size: 3 stride: 2 }"),
        Example("three axes", ((1, 2, 5, 5, 4),), "convolution_param { num_output: 3 kernel_size: 3 pad: 1 }"),
        Example("two bottoms", ((1, 3, 5, 5), (1, 3, 5, 5)), "convolution_param { num_output: 2 kernel_size: 1 }", 2),
    )
