"""Layer type ROIPooling (Fast R-CNN): maximum pooling of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.detection._region_pooling import (
    RegionPooling,
    Span,
    check_regions,
    clipped_spans,
    round_half_away,
)
from prototxt_gen.layers.example import Example, literal, normal
from prototxt_gen.layers.loss_base import legacy_size
from prototxt_gen.schema.message import Message, float32, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ROIPoolingParameter(Message, field="roi_pooling_param", number=8266711):
    """The parameters of Fast R-CNN; other forks use other numbers. `pooled_size` is Intel's."""

    pooled_h = uint32(1)
    pooled_w = uint32(2)
    spatial_scale = float32(3, 1.0)
    pooled_size = repeated(uint32(4))


class ROIPooling(RegionPooling):
    """Divide each region into a grid of cells and return the maximum of each cell.

    Source: yjxiong/caffe src/caffe/layers/roi_pooling_layer.cpp (Fast R-CNN's).
    Shape: feature map N×C×H×W, regions R×5 → R×C×pooled_h×pooled_w.
    Blobs: none.
    Differs: no difference from torchvision.ops.roi_pool or ONNX MaxRoiPool. A cell outside the feature map gives 0. The
        CPU code of happynear/caffe-windows rounds -0.5 up instead of away from zero.
    """

    type = "ROIPooling"
    params = (ROIPoolingParameter,)

    def cells(self, layer: Layer) -> tuple[int, int]:
        p = layer.get(ROIPoolingParameter)
        height, width = (*p.pooled_size, *p.pooled_size)[:2] if p.pooled_size else (p.pooled_h, p.pooled_w)
        if height < 1 or width < 1 or len(p.pooled_size) > 2:
            raise layer.error("it needs pooled_h and pooled_w of at least 1")
        return height, width

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_regions(layer, *bottoms)
        return [(legacy_size(layer, bottoms[1], 0), bottoms[0][1], *self.cells(layer))]

    def spans(self, layer: Layer, corners: Tensor, size: Sequence[int]) -> tuple[list[Span], list[Span]]:
        import torch

        x1, y1, x2, y2 = (round_half_away(float(c)) for c in corners * layer.get(ROIPoolingParameter).spatial_scale)
        out: list[list[Span]] = []
        for start, end, count, limit in zip((y1, x1), (y2, x2), self.cells(layer), size, strict=True):
            cell = torch.tensor(max(end - start + 1, 1), dtype=torch.float32) / count
            edges = torch.arange(count + 1, dtype=torch.float32) * cell
            out.append(clipped_spans(edges[:-1].floor() + start, edges[1:].ceil() + start, limit))
        return out[0], out[1]

    def pool(self, layer: Layer, image: Tensor, rows: list[Span], columns: list[Span]) -> Tensor:
        import torch

        def cell(row: Span, column: Span) -> Tensor:
            pixels = image[:, row[0] : row[1], column[0] : column[1]].flatten(1)
            return pixels.max(1).values if pixels.shape[1] else image.new_zeros(len(image))

        return torch.stack([torch.stack([cell(row, column) for column in columns], 1) for row in rows], 1)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        regions = g.op("Reshape", bottoms[1], g.const([-1, 5]))
        scale = layer.get(ROIPoolingParameter).spatial_scale
        return g.op("MaxRoiPool", bottoms[0], regions, pooled_shape=self.cells(layer), spatial_scale=scale)

    examples = (
        Example(
            "plain",
            ((2, 3, 6, 7), (4, 5)),
            "roi_pooling_param { pooled_h: 2 pooled_w: 3 }",
            draws=(normal, literal([[0, 0, 0, 6, 5], [1, 1, 2, 5, 4], [1, 3, 3, 3, 3], [0, 2, 0, 4, 5]])),
            gradients=(True, False),
        ),
        Example(
            "scaled, half pixels, over the edge",
            ((1, 2, 5, 5), (4, 5, 1, 1)),
            "roi_pooling_param { pooled_h: 3 pooled_w: 3 spatial_scale: 0.5 }",
            draws=(normal, literal([[0, 1, 1, 7, 7], [0, -1, -3, 4, 4], [0, 6, 6, 13, 13], [0, 5, 1, 2, 0]])),
            gradients=(True, False),
        ),
    )
