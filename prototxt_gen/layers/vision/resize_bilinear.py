"""Layer type ResizeBilinear (synopsys-caffe): TensorFlow's bilinear resizing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._resize_size import height_axis, resized_shape, top_size
from prototxt_gen.schema.message import Message, boolean, float32, int32, string

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

    Array = np.ndarray[Any, Any]


class ResizeBilinearParameter(Message, field="resize_bilinear_param", number=226):
    align_corners = boolean(1)
    output_height = int32(2)
    output_width = int32(3)
    data_format = string(4, "NHWC")
    scale_height = float32(5, 1.0)
    scale_width = float32(6, 1.0)
    half_pixel_centers = boolean(7)
    pytorch_half_pixel = boolean(8)


def neighbours(p: ResizeBilinearParameter, size: int, top: int) -> tuple[Array, Array, Array]:
    """Return for each pixel of the top the two pixels that it is between along an axis, and its relative position.

    Source: synopsys-caffe src/caffe/layers/resize_bilinear_layer.cpp compute_interpolation_weights, also in float32.
    """
    import numpy as np

    at, one, half = np.arange(top, dtype="float32"), np.float32(1), np.float32(0.5)
    if p.align_corners and top > 1:
        exact = at * (np.float32(size - 1) / np.float32(top - 1))
    elif p.pytorch_half_pixel and top == 1:
        exact = at - half
    elif p.half_pixel_centers or p.pytorch_half_pixel:
        exact = (at + half) * (np.float32(size) / np.float32(top)) - half
    else:
        exact = at * (np.float32(size) / np.float32(top))
    low, high = np.floor(exact), np.ceil(exact)
    clipped = np.maximum(low, 0).astype("int64"), np.minimum(high, size - one).astype("int64")
    return *clipped, exact - low


class ResizeBilinear(LayerType):
    """Resize by bilinear interpolation, with one of four rules for the positions of pixels.

    They are TensorFlow's old rule (the default), align_corners, half_pixel_centers and pytorch_half_pixel.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/resize_bilinear_layer.cpp.
    Shape: N×H×W×C, or N×C×H×W with data_format NCHW → output_height and output_width, or in·scale rounded down.
    Blobs: none.
    Differs: pytorch_half_pixel is PyTorch's rule, except that a top of one pixel is the first pixel, not the middle.
        The old rule is ONNX's `asymmetric`. The fork has no backward pass; here there is one.
    """

    type = "ResizeBilinear"
    params = (ResizeBilinearParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(ResizeBilinearParameter)
        if p.data_format not in ("NHWC", "NCHW"):
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): data_format {p.data_format} is not supported")
        return [resized_shape(layer, p, bottom, ("align_corners", "half_pixel_centers", "pytorch_half_pixel"))]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        p = layer.get(ResizeBilinearParameter)

        class ResizeBilinear(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                for axis, top in reversed(list(enumerate(top_size(p, tuple(x.shape)), height_axis(p)))):
                    low, high, share = (torch.from_numpy(a).to(x.device) for a in neighbours(p, x.shape[axis], top))
                    begin, end = x.index_select(axis, low), x.index_select(axis, high)
                    x = begin + (end - begin) * share.to(x.dtype).view((-1,) + (1,) * (3 - axis))
                return x

        return ResizeBilinear()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,), p = bottoms, layer.get(ResizeBilinearParameter)
        shape = g.shape(x)
        for axis, top in reversed(list(enumerate(top_size(p, shape), height_axis(p)))):
            low, high, share = neighbours(p, shape[axis], top)
            begin, end = g.op("Gather", x, low, axis=axis), g.op("Gather", x, high, axis=axis)
            step = g.op("Mul", g.op("Sub", end, begin), share.reshape((-1,) + (1,) * (3 - axis)))
            x = g.op("Add", begin, step)
        return x

    examples = (
        Example(
            "to a size, corners",
            ((2, 2, 3, 4),),
            'resize_bilinear_param { align_corners: true output_height: 5 output_width: 9 data_format: "NCHW" }',
            gradients=False,
        ),
        Example(
            "one pixel, corners",
            ((1, 2, 3, 4),),
            'resize_bilinear_param { align_corners: true output_height: 1 output_width: 3 data_format: "NCHW" }',
            gradients=False,
        ),
        Example(
            "last axis channels, scaled",
            ((1, 3, 5, 2),),
            "resize_bilinear_param { scale_height: 2 scale_width: 0.7 }",
            gradients=False,
        ),
        Example(
            "half pixels",
            ((1, 2, 3, 5),),
            'resize_bilinear_param { output_height: 7 output_width: 3 half_pixel_centers: true data_format: "NCHW" }',
            gradients=False,
        ),
        Example(
            "half pixels as in PyTorch",
            ((1, 2, 3, 5),),
            'resize_bilinear_param { output_height: 1 output_width: 8 pytorch_half_pixel: true data_format: "NCHW" }',
            gradients=False,
        ),
    )
