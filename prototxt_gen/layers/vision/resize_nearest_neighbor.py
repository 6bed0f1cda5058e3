"""Layer type ResizeNearestNeighbor (synopsys-caffe): TensorFlow's resizing to the nearest pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision._resize_size import height_axis, resized_shape, top_size
from prototxt_gen.schema.message import Message, boolean, float32, int32, string

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ResizeNearestNeighborParameter(Message, field="resize_nearest_neighbor_param", number=210):
    align_corners = boolean(1)
    output_height = int32(2)
    output_width = int32(3)
    data_format = string(4, "NHWC")
    scale_height = float32(5, 1.0)
    scale_width = float32(6, 1.0)
    half_pixel_centers = boolean(7)
    half_pixel_onnx = boolean(8)


def source_pixels(p: ResizeNearestNeighborParameter, size: int, top: int) -> np.ndarray[Any, Any]:
    """Return for each pixel of the top the index of its pixel in the bottom, along one axis, computed in float32.

    Source: synopsys-caffe src/caffe/layers/resize_nearest_neighbor_layer.cpp CalculateResizeScale, Forward_cpu.
    """
    import numpy as np

    at = np.arange(top, dtype="float32")
    if p.align_corners and top > 1:
        exact = at * (np.float32(size - 1) / np.float32(top - 1))
        whole = np.floor(exact)
        chosen = whole + (exact - whole >= 0.5)  # C's roundf: halves go up
    elif p.half_pixel_centers or p.half_pixel_onnx:
        middle = (at + np.float32(0.5)) * (np.float32(size) / np.float32(top))
        chosen = np.floor(middle - np.float32(0.5) if p.half_pixel_onnx else middle)
    else:
        chosen = np.floor(at * (np.float32(size) / np.float32(top)) + (0.5 if p.align_corners else 0.0))
    clipped: np.ndarray[Any, Any] = np.clip(chosen, 0, size - 1).astype("int64")
    return clipped


class ResizeNearestNeighbor(LayerType):
    """Resize by taking the nearest pixel, with one of four rules for the positions of pixels.

    They are TensorFlow's old rule (the default), align_corners, half_pixel_centers and half_pixel_onnx.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/resize_nearest_neighbor_layer.cpp.
    Shape: N×H×W×C, or with any other data_format N×C×H×W → output_height and output_width, or in·scale rounded down.
    Blobs: none.
    Differs: PyTorch and ONNX may choose another pixel exactly between two. The fork has no backward pass; here there is
        one.
    """

    type = "ResizeNearestNeighbor"
    params = (ResizeNearestNeighborParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(ResizeNearestNeighborParameter)
        return [resized_shape(layer, p, bottoms[0], ("align_corners", "half_pixel_centers", "half_pixel_onnx"))]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        p = layer.get(ResizeNearestNeighborParameter)

        class ResizeNearest(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                for axis, top in enumerate(top_size(p, tuple(x.shape)), height_axis(p)):
                    x = x.index_select(axis, torch.from_numpy(source_pixels(p, x.shape[axis], top)).to(x.device))
                return x

        return ResizeNearest()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,), p = bottoms, layer.get(ResizeNearestNeighborParameter)
        shape = g.shape(x)
        for axis, top in enumerate(top_size(p, shape), height_axis(p)):
            x = g.op("Gather", x, source_pixels(p, shape[axis], top), axis=axis)
        return x

    examples = (
        Example(
            "doubled",
            ((2, 2, 3, 4),),
            'resize_nearest_neighbor_param { data_format: "NCHW" scale_height: 2 scale_width: 2 }',
            gradients=False,
        ),
        Example(
            "last axis channels, to a size",
            ((1, 3, 4, 2),),
            "resize_nearest_neighbor_param { output_height: 5 output_width: 7 }",
            gradients=False,
        ),
        Example(
            "corners",
            ((1, 2, 3, 5),),
            'resize_nearest_neighbor_param { data_format: "NCHW" output_height: 5 output_width: 9 '
            "align_corners: true }",
            gradients=False,
        ),
        Example(
            "half pixels, smaller",
            ((1, 2, 5, 7),),
            'resize_nearest_neighbor_param { data_format: "NCHW" output_height: 3 output_width: 4 '
            "half_pixel_centers: true }",
            gradients=False,
        ),
        Example(
            "half pixels as in ONNX",
            ((1, 2, 3, 4),),
            'resize_nearest_neighbor_param { data_format: "NCHW" scale_height: 1.7 scale_width: 2.5 '
            "half_pixel_onnx: true }",
            gradients=False,
        ),
    )
