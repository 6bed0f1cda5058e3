"""Layer type Im2col: the pixels under each position of a convolution kernel as channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._convolution_axes import channels_from_axis_1_onnx, channels_to_axis_1_onnx, columns
from prototxt_gen.layers.vision._convolution_window import ConvolutionParameter, channel_axis, window

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Im2col(LayerType):
    """Make every pixel under the kernel a channel of the kernel's position, in the order of a kernel's weights.

    Source: src/caffe/layers/im2col_layer.cpp Im2colLayer, src/caffe/util/im2col.cpp.
    Shape: N×C×… → N×(C·k·…)×…, with sizes floor((in + 2·pad - extent) / stride) + 1.
    Blobs: none.
    Differs: nn.Unfold gives the same numbers, but flattens the positions and supports two spatial axes only.
    """

    type = "Im2col"
    params = (ConvolutionParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,) = bottoms
        axis, w = channel_axis(layer, bottom), window(layer, bottom)
        spatial = w.output_size(bottom[axis + 1 :])
        if not spatial or any(size < 1 for size in spatial):
            raise layer.error(f"its kernel does not fit the bottom {show(bottom)}")
        return [(*bottom[:axis], bottom[axis] * math.prod(w.kernel), *spatial)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        return columns(window(layer, bottoms[0]), channel_axis(layer, bottoms[0]))

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        """Write a depthwise convolution whose kernels are 1 at one element and 0 elsewhere."""
        import numpy as np

        shape = g.shape(bottoms[0])
        axis, (top,) = channel_axis(layer, shape), self.shapes(layer, [shape])
        channels, w = shape[axis], window(layer, shape).with_padding_for_kernel(shape[axis + 1 :])
        one_hot = np.eye(math.prod(w.kernel), dtype="float32").reshape(-1, 1, *w.kernel)
        columns_value = g.op(
            "Conv",
            channels_to_axis_1_onnx(g, bottoms[0], axis),
            np.tile(one_hot, (channels, 1, *[1] * len(w.kernel))),
            kernel_shape=w.kernel,
            strides=w.stride,
            pads=w.pad + w.end,
            dilations=w.dilation,
            group=channels,
        )
        return channels_from_axis_1_onnx(g, columns_value, axis, shape, top)

    examples = (
        Example("plain", ((2, 3, 5, 6),), "convolution_param { kernel_size: 3 }"),
        Example("strided, padded", ((1, 2, 6, 5),), "convolution_param { kernel_size: 3 stride: 2 pad: 1 }"),
        Example("dilated, oblong", ((1, 2, 7, 6),), "convolution_param { kernel_h: 3 kernel_w: 2 dilation: 2 pad: 1 }"),
        Example("kernel larger than the bottom", ((1, 2, 4, 2),), "convolution_param { kernel_size: 3 stride: 2 }"),
        Example("one axis", ((2, 3, 6),), "convolution_param { kernel_size: 2 stride: 2 }"),
        Example("three axes", ((1, 2, 3, 4, 3),), "convolution_param { kernel_size: 2 }"),
        Example("four axes", ((1, 2, 3, 4, 3, 2),), "convolution_param { kernel_size: 2 }"),
        Example("channels at axis 2", ((2, 3, 2, 4, 5),), "convolution_param { kernel_size: 3 pad: 1 axis: 2 }"),
        Example("channels first", ((2, 4, 5),), "convolution_param { kernel_size: 2 axis: -3 }"),
    )
