"""Layer type Convolution, and the base class that it shares with Deconvolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_wrong_in_place
from prototxt_gen.layers.base import Arity, BlobSpec, LayerType, per_bottom, show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._convolution_axes import (
    channels_from_axis_1_onnx,
    channels_to_axis_1_onnx,
    convolution_by_columns,
    with_channels_at,
    with_extra_padding,
)
from prototxt_gen.layers.vision._convolution_window import ConvolutionParameter, Window, channel_axis, window

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

__all__ = [
    "Convolution",
    "ConvolutionBase",
    "ConvolutionParameter",
    "module_with_weight",
    "spatial_rank",
    "zero_padding",
]

ONE_PIXEL = Window((1,), (1,), (0,), (1,), (0,))


class ConvolutionBase(LayerType):
    """Base class of layers with convolution_param and weights: each bottom has a top, and all share the weights."""

    params = (ConvolutionParameter,)
    bottoms = Arity(1)
    tops = Arity(1)
    same_count = True

    def spatial(self, bottom: Shape, w: Window) -> Shape:
        """Return the spatial sizes of the top, given those of the bottom."""
        raise NotImplementedError

    def weight_shape(self, outputs: int, inputs: int, group: int) -> tuple[int, int]:
        """Return the first two sizes of the weight."""
        raise NotImplementedError

    def outputs(self, layer: Layer, channels: int) -> tuple[int, int]:
        """Return the number of output channels and the number of groups."""
        p = layer.get(ConvolutionParameter)
        return p.num_output, p.group

    def padded_window(self, layer: Layer, bottom: Shape) -> Window:
        """Return the window for the PyTorch and ONNX forms: over one pixel if there is no spatial axis."""
        return window(layer, bottom) if spatial_rank(layer, bottom) else ONE_PIXEL

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        first, axis = bottoms[0], channel_axis(layer, bottoms[0])
        if any(shape != first for shape in bottoms):
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; it needs equal shapes")
        outputs = self._check_outputs(layer, first[axis])
        w = window(layer, first)
        if set(w.kernel) | set(w.stride) <= {1} and not any(w.pad + w.end):
            refuse_wrong_in_place(layer)  # larger kernels read a copy of the bottom (im2col), so they work in place
        spatial = self.spatial(first[axis + 1 :], w)
        if any(size < 1 for size in spatial):
            raise layer.error(f"its top would have size {show(spatial)}: kernel and pad do not fit {show(first)}")
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
        weight_shape = (*self.weight_shape(outputs, channels, group), *window(layer, bottoms[0]).kernel)
        weight = BlobSpec(weight_shape, p.weight_filler)
        return {"weight": weight} | ({"bias": BlobSpec((outputs,), p.bias_filler)} if p.bias_term else {})

    def torch_args(self, layer: Layer, bottom: Shape) -> dict[str, Any]:
        """Return the keyword arguments of torch.nn's (transposed) convolutions; padding 0 if it is not symmetric."""
        p, w = layer.get(ConvolutionParameter), self.padded_window(layer, bottom)
        channels = bottom[channel_axis(layer, bottom)]
        outputs, group = self.outputs(layer, channels)
        return {
            "in_channels": channels,
            "out_channels": outputs,
            "kernel_size": w.kernel,
            "stride": w.stride,
            "padding": w.pad if w.pad == w.end else 0,
            "dilation": w.dilation,
            "groups": group,
            "bias": p.bias_term,
        }

    def load(self, module: nn.Module, blobs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        super().load(module_with_weight(module), blobs)

    def dump(self, module: nn.Module, roles: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        return super().dump(module_with_weight(module), roles)

    def onnx_nodes(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]], kind: str
    ) -> list[str]:
        """Write a node of this operator for each bottom, all with the same weights."""
        shape = g.shape(bottoms[0])
        axis, attributes = channel_axis(layer, shape), self.onnx_attributes(layer, shape)
        (top,) = self.shapes(layer, [shape])
        arrays = {role: blob if role == "bias" or blob.ndim > 2 else blob[..., None] for role, blob in blobs.items()}
        weights = [g.const(array, role) for role, array in arrays.items()]
        nodes = [g.op(kind, channels_to_axis_1_onnx(g, bottom, axis), *weights, **attributes) for bottom in bottoms]
        return [channels_from_axis_1_onnx(g, node, axis, shape, top) for node in nodes]

    def onnx_attributes(self, layer: Layer, bottom: Shape) -> dict[str, Any]:
        """Return the attributes of ONNX Conv and ConvTranspose."""
        w = self.padded_window(layer, bottom)
        return {
            "kernel_shape": w.kernel,
            "strides": w.stride,
            "pads": w.pad + w.end,
            "dilations": w.dilation,
            "group": self.outputs(layer, bottom[channel_axis(layer, bottom)])[1],
        }


def zero_padding(sides: tuple[int, ...]) -> nn.Module:
    """Return a module that pads 1 to 3 spatial axes with zeros; negative padding crops."""
    from torch import nn

    pad: Any = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)[len(sides) // 2 - 1]
    module: nn.Module = pad(sides, 0.0)
    return module


def module_with_weight(module: nn.Module) -> nn.Module:
    """Return the module, or the one inside it, that has the weight."""
    return next(inner for inner in module.modules() if hasattr(inner, "weight"))


def spatial_rank(layer: Layer, bottom: Shape) -> int:
    """Return the number of spatial axes, which are those after the channels."""
    return len(bottom) - 1 - channel_axis(layer, bottom)


class Convolution(ConvolutionBase):
    """Convolve the bottom with learned kernels (cross-correlation), optionally in groups, and add a bias.

    Source: src/caffe/layers/conv_layer.cpp ConvolutionLayer::compute_output_shape, base_conv_layer.cpp.
    Shape: N×C×… → N×num_output×…, with sizes floor((in + 2·pad - extent) / stride) + 1.
    Blobs: weight O×(C/group)×k…, bias O.
    Differs: a kernel that is larger than the padded bottom by less than a stride still has one position, partly over
        zeros; PyTorch and ONNX refuse it. Each bottom has a top of its own, computed with the same weights.
    """

    type = "Convolution"

    def spatial(self, bottom: Shape, w: Window) -> Shape:
        return w.output_size(bottom)

    def padded_window(self, layer: Layer, bottom: Shape) -> Window:
        spatial = bottom[channel_axis(layer, bottom) + 1 :] or (1,)
        return super().padded_window(layer, bottom).with_padding_for_kernel(spatial)

    def weight_shape(self, outputs: int, inputs: int, group: int) -> tuple[int, int]:
        return (outputs, inputs // group)

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        weight = self.blobs(layer, bottoms)["weight"].shape
        return sum(math.prod(top) * math.prod(weight[1:]) for top in tops)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        bottom, axis, rank = bottoms[0], channel_axis(layer, bottoms[0]), spatial_rank(layer, bottoms[0])
        w = self.padded_window(layer, bottom)
        if rank > 3:
            group, weight = self.outputs(layer, bottom[axis])[1], self.blobs(layer, bottoms)["weight"].shape
            bias = layer.get(ConvolutionParameter).bias_term
            return per_bottom(convolution_by_columns(window(layer, bottom), axis, weight, group, bias), bottoms)
        conv: nn.Module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[max(rank, 1) - 1](**self.torch_args(layer, bottom))
        if w.pad != w.end:
            exact = window(layer, bottom)
            padded = nn.Sequential(zero_padding(w.torch_padding()), conv)
            conv = padded if w == exact else with_extra_padding(conv, exact)
        return per_bottom(with_channels_at(conv, axis, bottom), bottoms)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return self.onnx_nodes(g, layer, bottoms, blobs, "Conv")

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
        Example(
            "four axes, grouped", ((1, 4, 3, 4, 3, 3),), "convolution_param { num_output: 4 kernel_size: 2 group: 2 }"
        ),
        Example(
            "five axes, strided, padded, dilated, no bias",
            ((2, 2, 3, 3, 2, 2, 3),),
            "convolution_param { num_output: 2 kernel_size: 2 stride: 2 pad: 1 dilation: 2 bias_term: false }",
        ),
        Example("no spatial axis", ((3, 4),), "convolution_param { num_output: 2 group: 2 }"),
        Example("channels at axis 2", ((2, 3, 4, 5, 6),), "convolution_param { num_output: 2 kernel_size: 3 axis: 2 }"),
        Example("channels first", ((3, 5, 6),), "convolution_param { num_output: 2 kernel_size: 3 pad: 1 axis: 0 }"),
        Example("channels last", ((2, 3, 4),), "convolution_param { num_output: 5 axis: -1 }"),
    )
