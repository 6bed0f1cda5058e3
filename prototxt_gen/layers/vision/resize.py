"""Layer type Resize (caffe-windows, brocolli-caffe): bilinear resizing that darkens the right and bottom edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, boolean, float32, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ResizeLayerParameter(Message, field="resize_param", number=231):
    """The forks call it ResizeParameter, the name of another message of SSD. brocolli-caffe has the number 251."""

    height = uint32(1)
    width = uint32(2)
    is_pyramid_test = boolean(3)
    out_height_scale = float32(4)
    out_width_scale = float32(5)


def interpolation_matrix(size: int, top: int) -> np.ndarray[Any, Any]:
    """Return the weight, top×size, of each pixel of the bottom in each pixel of the top, along one axis.

    Source: happynear/caffe-windows src/caffe/util/util_img.cpp BiLinearResizeMat_cpu.
    """
    import numpy as np

    at = np.arange(top, dtype="float32") * (np.float32(size) / np.float32(top))
    low = np.floor(at)
    matrix = np.zeros((top, size + 2), dtype="float32")
    rows, columns = np.arange(top), low.astype("int64").clip(0, size)
    matrix[rows, columns] = 1 - (at - low)
    matrix[rows, columns + 1] = at - low
    return matrix[:, :size]  # pixels beyond the last one count as 0


class Resize(LayerType):
    """Resize by bilinear interpolation, where pixel i of the top is at i·in/out; pixels beyond the last one count as 0.

    Source: happynear/caffe-windows src/caffe/layers/resize_layer.cpp ResizeLayer, src/caffe/util/util_img.cpp.
    Shape: N×C×H×W → N×C×height×width; with is_pyramid_test the sizes are in·out_height_scale and in·out_width_scale,
        truncated.
    Blobs: none.
    Differs: PyTorch and ONNX never use zeros beyond the edges.
    """

    type = "Resize"
    params = (ResizeLayerParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(ResizeLayerParameter)
        if len(bottom) != 4:
            raise layer.error(f"it needs a bottom with 4 axes, not {show(bottom)}")
        for name in ("out_height_scale", "out_width_scale") if p.is_pyramid_test else ("height", "width"):
            if not p.has(name):
                raise layer.error(f"it needs {name}")
        size = self._size(p, (bottom[2], bottom[3]))
        if min(size) < 1:
            raise layer.error(f"its top would have size {show(size)}")
        return [(*bottom[:2], *size)]

    def _size(self, p: ResizeLayerParameter, size: Shape) -> tuple[int, int]:
        """Return the height and width of the top."""
        import numpy as np

        if not p.is_pyramid_test:
            return p.height, p.width
        scales = np.asarray([p.out_height_scale, p.out_width_scale], dtype="float32")
        high, wide = scales * np.asarray(size, dtype="float32")
        return int(high), int(wide)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        p, layer_type = layer.get(ResizeLayerParameter), self

        class ResizeBilinear(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                size = tuple(x.shape[2:])
                rows, columns = (
                    torch.from_numpy(interpolation_matrix(*pair))
                    for pair in zip(size, layer_type._size(p, size), strict=True)
                )
                return rows.to(x) @ x @ columns.T.to(x)

        return ResizeBilinear()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        size = g.shape(bottoms[0])[2:]
        high, wide = self._size(layer.get(ResizeLayerParameter), size)
        rows, columns = interpolation_matrix(size[0], high), interpolation_matrix(size[1], wide)
        return g.op("MatMul", g.op("MatMul", rows, bottoms[0]), columns.T)

    examples = (
        Example("larger", ((2, 2, 3, 4),), "resize_param { height: 5 width: 8 }"),
        Example("smaller", ((1, 2, 7, 6),), "resize_param { height: 3 width: 4 }"),
        Example("the same", ((1, 2, 3, 4),), "resize_param { height: 3 width: 4 }"),
        Example(
            "scaled",
            ((1, 2, 4, 5),),
            "resize_param { is_pyramid_test: true out_height_scale: 1.6 out_width_scale: 0.7 }",
        ),
    )
