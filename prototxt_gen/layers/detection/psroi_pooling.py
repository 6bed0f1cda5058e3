"""Layer type PSROIPooling (R-FCN): position-sensitive average pooling of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.detection._region_pooling import (
    RegionPooling,
    Span,
    check_regions,
    clipped_spans,
    round_half_away,
)
from prototxt_gen.layers.example import Example, literal, normal
from prototxt_gen.layers.loss_base import legacy_size
from prototxt_gen.schema.message import Message, float32, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class PSROIPoolingParameter(Message, field="psroi_pooling_param", number=149):
    """The parameters of R-FCN; every fork uses another number."""

    spatial_scale = float32(1)
    output_dim = int32(2)
    group_size = int32(3)


class PSROIPooling(RegionPooling):
    """Divide each region into a grid of cells and return the average of each cell, over the cell's own channels.

    Source: intel/caffe src/caffe/layers/psroi_pooling_layer.cpp (R-FCN's).
    Shape: feature map N×(output_dim·group_size²)×H×W, regions R×5 → R×output_dim×group_size×group_size.
    Blobs: none.
    Differs: torchvision.ops.ps_roi_pool rounds after scaling. ONNX has no such operator; in the ONNX form a region of
        an image that does not exist gives zeros.
    """

    type = "PSROIPooling"
    params = (PSROIPoolingParameter,)

    def cells(self, layer: Layer) -> tuple[int, int]:
        size = layer.get(PSROIPoolingParameter).group_size
        return size, size

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(PSROIPoolingParameter)
        check_regions(layer, *bottoms)
        if not p.has("spatial_scale") or p.output_dim < 1 or p.group_size < 1:
            raise layer.error("it needs spatial_scale, and output_dim and group_size of at least 1")
        if bottoms[0][1] != p.output_dim * p.group_size**2:
            raise layer.error(
                f"its bottom {show(bottoms[0])} needs output_dim·group_size² channels, {p.output_dim * p.group_size**2}"
            )
        return [(legacy_size(layer, bottoms[1], 0), p.output_dim, p.group_size, p.group_size)]

    def spans(self, layer: Layer, corners: Tensor, size: Sequence[int]) -> tuple[list[Span], list[Span]]:
        import torch

        p = layer.get(PSROIPoolingParameter)
        whole = torch.tensor([round_half_away(float(c)) for c in corners], dtype=torch.float32)
        x1, y1, x2, y2 = (whole + torch.tensor([0.0, 0.0, 1.0, 1.0])) * p.spatial_scale
        out: list[list[Span]] = []
        for start, end, limit in zip((y1, x1), (y2, x2), size, strict=True):
            cell = (end - start).clamp(min=0.1) / p.group_size
            edges = torch.arange(p.group_size + 1, dtype=torch.float32) * cell + start
            out.append(clipped_spans(edges[:-1].floor(), edges[1:].ceil(), limit))
        return out[0], out[1]

    def pool(self, layer: Layer, image: Tensor, rows: list[Span], columns: list[Span]) -> Tensor:
        import torch

        size = layer.get(PSROIPoolingParameter).group_size
        by_cell = image.reshape(-1, size, size, *image.shape[1:])

        def cell(i: int, j: int) -> Tensor:
            pixels = by_cell[:, i, j, rows[i][0] : rows[i][1], columns[j][0] : columns[j][1]].flatten(1)
            return pixels.sum(1) / max(1, pixels.shape[1])

        return torch.stack([torch.stack([cell(i, j) for j in range(size)], 1) for i in range(size)], 1)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        """Write sums over cells as products with 0/1 masks: over columns for all regions at once, then over rows."""
        p, (_, _, height, width) = layer.get(PSROIPoolingParameter), g.shape(bottoms[0])
        size = p.group_size
        regions = g.op("Reshape", bottoms[1], g.const([-1, 5]))
        image, x1, y1, x2, y2 = g.ops("Split", regions, outputs=5, axis=1, num_outputs=5)
        rows, columns = (
            _masks(g, p, ends, limit) for ends, limit in (((y1, y2), height), ((x1, x2), width))
        )  # each cells×size×R
        by_cell = g.op("Reshape", bottoms[0], g.const([-1, p.output_dim, size, size, height, width]))
        by_cell = g.op("Transpose", by_cell, perm=[2, 3, 0, 1, 4, 5])
        flat = g.op("Reshape", by_cell, g.const([size, size, -1, width]))
        summed = g.op("MatMul", flat, columns)
        count = g.op("Shape", regions, start=0, end=1)
        shape = g.op("Concat", g.const([size, size, -1, p.output_dim, height]), count, axis=0)
        images = g.op("Range", *(g.op("Cast", n, to=1) for n in (_scalar(g, 0), _first(g, bottoms[0]), _scalar(g, 1))))
        of_image = g.op("Cast", g.op("Equal", image, images), to=1)  # R×N
        of_image = g.op("Unsqueeze", g.op("Transpose", of_image, perm=[1, 0]), g.const([1, 2]))
        weights = g.op("Mul", g.op("Unsqueeze", rows, g.const([1, 2, 3])), of_image)
        total = g.op("ReduceSum", g.op("Mul", g.op("Reshape", summed, shape), weights), g.const([2, 4]), keepdims=0)
        pixels = [g.op("ReduceSum", mask, g.const([1]), keepdims=0) for mask in (rows, columns)]
        area = g.op("Mul", g.op("Unsqueeze", pixels[0], g.const([1])), g.op("Unsqueeze", pixels[1], g.const([0])))
        area = g.op("Unsqueeze", g.op("Max", area, g.const(1.0)), g.const([2]))
        return g.op("Transpose", g.op("Div", total, area), perm=[3, 2, 0, 1])

    examples = (
        Example(
            "two groups",
            ((2, 8, 7, 8), (4, 5)),
            "psroi_pooling_param { spatial_scale: 1 output_dim: 2 group_size: 2 }",
            draws=(normal, literal([[0, 0, 0, 6, 5], [1, 1, 2, 5, 4], [1, 3, 3, 3, 3], [0, 2, 0, 4, 5]])),
            gradients=(True, False),
        ),
        Example(
            "scaled, half pixels, over the edge",
            ((1, 9, 5, 6), (4, 5, 1, 1)),
            "psroi_pooling_param { spatial_scale: 0.5 output_dim: 1 group_size: 3 }",
            draws=(normal, literal([[0, 1.5, 1, 7.5, 7], [0, -1.5, -3, 4, 4], [0, 6, 6, 13, 13], [0, 25, 21, 32, 30]])),
            gradients=(True, False),
        ),
    )


def _masks(g: OnnxGraph, p: PSROIPoolingParameter, ends: Sequence[str], limit: int) -> str:
    """Return a 0/1 mask, cells×limit×R: whether a pixel is inside a cell of a region, along one axis."""
    import numpy as np

    start, end = (_scaled(g, coordinate, added, p.spatial_scale) for added, coordinate in enumerate(ends))
    cell = g.op("Div", g.op("Max", g.op("Sub", end, start), g.const(0.1)), g.const(float(p.group_size)))
    low, high = (
        g.op("Add", g.op("Mul", np.arange(first, p.group_size + first, dtype="float32"), cell), start)
        for first in (0, 1)
    )  # R×cells
    pixel = np.arange(limit, dtype="float32").reshape(-1, 1)
    low, high = (g.op(kind, g.op("Unsqueeze", edge, g.const([1]))) for kind, edge in (("Floor", low), ("Ceil", high)))
    inside = g.op("And", g.op("LessOrEqual", low, pixel), g.op("Less", pixel, high))  # R×limit×cells
    return g.op("Transpose", g.op("Cast", inside, to=1), perm=[2, 1, 0])


def _scaled(g: OnnxGraph, coordinate: str, added: int, scale: float) -> str:
    """Return a coordinate of all regions in pixels of the feature map, R×1.

    It is rounded half away from zero, increased by `added`, and scaled.
    """
    exact = g.op("Cast", coordinate, to=11)
    half = g.op("Cast", g.const(0.5), to=11)
    whole = g.op("Mul", g.op("Sign", exact), g.op("Floor", g.op("Add", g.op("Abs", exact), half)))
    return g.op("Mul", g.op("Add", g.op("Cast", whole, to=1), g.const(float(added))), g.const(scale))


def _scalar(g: OnnxGraph, number: int) -> str:
    return g.op("Constant", value_int=number)


def _first(g: OnnxGraph, value: str) -> str:
    """Return the size of a value's first axis, as a value without axes."""
    return g.op("Squeeze", g.op("Shape", value, start=0, end=1))
