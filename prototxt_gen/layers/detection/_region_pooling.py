"""The base class of ROIPooling and PSROIPooling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType, exactly

if TYPE_CHECKING:
    from torch import Tensor, nn


Span = tuple[int, int]
"""First pixel (included) and last pixel (excluded) on one axis of the feature map."""


def round_half_away(number: float) -> int:
    """Round to the nearest integer, halves away from zero, as C's round()."""
    return int(math.copysign(math.floor(abs(number) + 0.5), number))


def check_regions(layer: Layer, feature: Shape, regions: Shape) -> None:
    """Raise NetError unless the feature map is N×C×H×W and the regions are rows of 5 numbers."""
    if len(feature) != 4:
        raise layer.error(f"its bottom {show(feature)} is not N×C×H×W")
    if len(regions) > 4 or math.prod(regions[1:]) != 5:
        raise layer.error(f"its regions are {show(regions)}; it needs rows of 5 elements: image, x1, y1, x2, y2")


class RegionPooling(LayerType):
    """Base of both types: each region of a feature map is divided into cells, and each cell is pooled to one number.

    Regions are rows of image, x1, y1, x2, y2 in pixels.
    """

    bottoms = exactly(2)

    def cells(self, layer: Layer) -> tuple[int, int]:
        """Return the number of rows and columns of cells in a region."""
        raise NotImplementedError

    def spans(self, layer: Layer, corners: Tensor, size: Sequence[int]) -> tuple[list[Span], list[Span]]:
        """Return the pixel spans of the rows and of the columns of cells, given float32 x1, y1, x2, y2 of a region."""
        raise NotImplementedError

    def pool(self, layer: Layer, image: Tensor, rows: list[Span], columns: list[Span]) -> Tensor:
        """Return the pooled C×rows×columns of a C×H×W image."""
        raise NotImplementedError

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        layer_type = self
        channels = self.shapes(layer, bottoms)[0][1]

        class Pool(nn.Module):
            def forward(self, x: Tensor, regions: Tensor) -> Tensor:
                pooled = list(self.each(x, regions.detach().reshape(-1, 5).cpu().float()))
                return torch.stack(pooled) if pooled else x.new_zeros(0, channels, *layer_type.cells(layer))

            def each(self, x: Tensor, regions: Tensor) -> Iterator[Tensor]:
                for region in regions:
                    image = int(region[0])
                    if not 0 <= image < len(x):
                        raise layer.error(f"a region belongs to image {image}, but the batch has {len(x)} images")
                    yield layer_type.pool(layer, x[image], *layer_type.spans(layer, region[1:], x.shape[2:]))

        return Pool()


def clipped_spans(lows: Tensor, highs: Tensor, size: int) -> list[Span]:
    """Return (low, high) of each span as integers, clipped to 0…size."""
    return [(min(max(int(a), 0), size), min(max(int(b), 0), size)) for a, b in zip(lows, highs, strict=True)]
