"""Layer types ConvolutionDepthwise, DepthwiseConvolution and ConvolutionDepthWise: one group for each channel."""

from __future__ import annotations

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._convolution_window import ConvolutionParameter
from prototxt_gen.layers.vision.convolution import Convolution

_EXAMPLES = (
    Example("plain", ((2, 3, 6, 7),), "convolution_param { num_output: 3 kernel_size: 3 }"),
    Example(
        "strided, padded, no bias",
        ((1, 4, 8, 7),),
        "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 bias_term: false }",
    ),
    Example(
        "oblong, dilated",
        ((1, 2, 9, 8),),
        "convolution_param { num_output: 2 group: 2 kernel_h: 3 kernel_w: 2 pad_h: 2 pad_w: 0 dilation: 2 }",
    ),
)


class ConvolutionDepthwise(Convolution):
    """Convolve each channel with its own kernel (depthwise convolution), and add a bias.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/conv_depthwise_layer.cpp.
    Shape: N×C×… → N×C×…, with sizes floor((in + 2·pad - extent) / stride) + 1.
    Blobs: weight C×1×k…, bias C.
    Differs: no difference from PyTorch or ONNX. `group` may be omitted; num_output must be the number of channels,
        because the forks interpret other numbers differently.
    """

    type = "ConvolutionDepthwise"

    def outputs(self, layer: Layer, channels: int) -> tuple[int, int]:
        p = layer.get(ConvolutionParameter)
        if p.num_output != channels or (p.has("group") and p.group != channels):
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): num_output and group must be the bottom's {channels} channels"
            )
        return channels, channels

    examples = _EXAMPLES


class DepthwiseConvolution(ConvolutionDepthwise):
    """Depthwise convolution, the same as ConvolutionDepthwise (yonghenglh6/DepthwiseConvolution's name)."""

    type = "DepthwiseConvolution"
    examples = _EXAMPLES


class ConvolutionDepthWise(ConvolutionDepthwise):
    """Depthwise convolution, the same as ConvolutionDepthwise (another spelling)."""

    type = "ConvolutionDepthWise"
    examples = _EXAMPLES
