"""Layer type Deconvolution: transposed convolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import per_bottom
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._convolution_axes import with_channels_at
from prototxt_gen.layers.vision._convolution_window import Window, channel_axis
from prototxt_gen.layers.vision.convolution import ConvolutionBase, spatial_rank, zero_padding

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Deconvolution(ConvolutionBase):
    """Apply a transposed convolution with learned kernels, optionally in groups, and add a bias.

    Source: src/caffe/layers/deconv_layer.cpp DeconvolutionLayer::compute_output_shape, base_conv_layer.cpp.
    Shape: N×C×… → N×num_output×…, with sizes stride·(in - 1) + extent - 2·pad.
    Blobs: weight C×(num_output/group)×k…, bias num_output.
    Differs: no difference from PyTorch or ONNX. With num_output = group = C and a `bilinear` filler it enlarges images.
    """

    type = "Deconvolution"

    def spatial(self, bottom: Shape, w: Window) -> Shape:
        sizes = zip(bottom, w.pad, w.end, w.extent, w.stride, strict=True)
        return tuple(stride * (size - 1) + extent - pad - end for size, pad, end, extent, stride in sizes)

    def weight_shape(self, outputs: int, inputs: int, group: int) -> tuple[int, int]:
        return (inputs, outputs // group)

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        weight = self.blobs(layer, bottoms)["weight"].shape
        return sum(math.prod(bottom) * math.prod(weight[1:]) for bottom in bottoms)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        axis, rank = channel_axis(layer, bottoms[0]), self._rank(layer, bottoms[0])
        w = self.padded_window(layer, bottoms[0])
        torch_class = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[max(rank, 1) - 1]
        conv: nn.Module = torch_class(**self.torch_args(layer, bottoms[0]))
        if w.pad != w.end:
            conv = nn.Sequential(conv, zero_padding(w.torch_padding(-1)))  # negative padding crops
        return per_bottom(with_channels_at(conv, axis, bottoms[0]), bottoms)

    def _rank(self, layer: Layer, bottom: Shape) -> int:
        """Return the number of spatial axes. Raises UnsupportedError if it is more than three."""
        rank = spatial_rank(layer, bottom)
        if rank > 3:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): it is supported for up to 3 spatial axes; "
                f"the bottom is {show(bottom)}"
            )
        return rank

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        self._rank(layer, g.shape(bottoms[0]))
        return self.onnx_nodes(g, layer, bottoms, blobs, "ConvTranspose")

    examples = (
        Example("plain", ((2, 3, 4, 5),), "convolution_param { num_output: 4 kernel_size: 3 }"),
        Example(
            "strided, padded, grouped",
            ((1, 4, 4, 3),),
            "convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 2 }",
        ),
        Example(
            "bilinear, a group for each channel, no bias",
            ((2, 3, 4, 4),),
            "convolution_param { num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1 bias_term: false "
            'weight_filler { type: "bilinear" } }',
        ),
        Example(
            "oblong",
            ((1, 2, 4, 5),),
            "convolution_param { num_output: 3 kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 3 pad_h: 1 pad_w: 0 }",
        ),
        Example("dilated", ((1, 2, 5, 5),), "convolution_param { num_output: 3 kernel_size: 3 dilation: 2 pad: 1 }"),
        Example(
            "pad larger than half the kernel",
            ((1, 2, 5, 5),),
            "convolution_param { num_output: 2 kernel_size: 2 pad: 2 }",
        ),
        Example("one axis", ((2, 3, 5),), "convolution_param { num_output: 2 kernel_size: 3 stride: 2 }"),
        Example(
            "three axes", ((1, 2, 3, 3, 2),), "convolution_param { num_output: 2 kernel_size: 3 pad: 1 stride: 2 }"
        ),
        Example("two bottoms", ((1, 2, 3, 3), (1, 2, 3, 3)), "convolution_param { num_output: 2 kernel_size: 2 }", 2),
        Example(
            "channels at axis 2",
            ((2, 3, 4, 3, 3),),
            "convolution_param { num_output: 2 kernel_size: 2 stride: 2 group: 2 axis: 2 }",
        ),
        Example("no spatial axis", ((3, 4),), "convolution_param { num_output: 2 }"),
    )
