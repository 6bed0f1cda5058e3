"""Convolution, and what Deconvolution, Im2col and the depthwise forks share with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from prototxt_gen.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, BlobSpec, LayerType, per_bottom, show_all
from prototxt_gen.layers.convolution_window import ConvolutionParameter, Window, channel_axis, window
from prototxt_gen.layers.example import Example

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from converters.graph import Graph

__all__ = ["Convolution", "ConvolutionBase", "ConvolutionParameter", "around", "learned", "spatial_rank"]


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

    def fitted(self, layer: Layer, bottom: Shape) -> Window:
        """Return the window over a bottom N×C×… as the lowerings need it."""
        return window(layer, bottom)

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
        p, w = layer.get(ConvolutionParameter), self.fitted(layer, bottom)
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
        w = self.fitted(layer, bottom)
        return {
            "kernel_shape": w.kernel,
            "strides": w.stride,
            "pads": w.pad + w.end,
            "dilations": w.dilation,
            "group": self.outputs(layer, bottom[1])[1],
        }


def around(sides: tuple[int, ...]) -> nn.Module:
    """Return a module that pads 1 to 3 spatial axes with zeros; a negative side is cut off."""
    from torch import nn

    pad: Any = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)[len(sides) // 2 - 1]
    made: nn.Module = pad(sides, 0.0)
    return made


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
    Differs: from PyTorch, ONNX: a kernel too large for the padded bottom by less than a stride still has one place,
    over zeros. Every bottom has a top of its own, through the same weights.
    """

    type = "Convolution"

    def spatial(self, bottom: Shape, w: Window) -> Shape:
        return w.steps(bottom)

    def fitted(self, layer: Layer, bottom: Shape) -> Window:
        return window(layer, bottom).widened(bottom[2:])

    def weight_shape(self, outputs: int, inputs: int, group: int) -> tuple[int, int]:
        return (outputs, inputs // group)

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        weight = self.blobs(layer, bottoms)["weight"].shape
        return sum(math.prod(top) * math.prod(weight[1:]) for top in tops)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        rank, w = spatial_rank(layer, bottoms[0]), self.fitted(layer, bottoms[0])
        conv: nn.Module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](**self.torch_args(layer, bottoms[0]))
        if w.pad != w.end:
            conv = nn.Sequential(around(w.around()), conv)
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
        Example(
            "kernel larger than the bottom",
            ((1, 2, 4, 3),),
            "convolution_param { num_output: 3 kernel_h: 2 kernel_w: 6 stride: 3 pad_h: 0 pad_w: 1 }",
        ),
        Example("two bottoms", ((1, 3, 5, 5), (1, 3, 5, 5)), "convolution_param { num_output: 2 kernel_size: 1 }", 2),
    )
