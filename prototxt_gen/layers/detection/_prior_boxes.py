"""Parameters and computation that PriorBox and PriorBoxClustered share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.layers.loss_base import legacy_size
from prototxt_gen.schema.message import Message, boolean, float32, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


Size = tuple[float, float]
"""Width, height."""


class PriorBoxParameter(Message, field="prior_box_param", number=203):
    """SSD's parameters, with the width and height of PriorBoxClustered, which only Intel's fork has."""

    min_size = repeated(float32(1))
    max_size = repeated(float32(2))
    aspect_ratio = repeated(float32(3))
    flip = boolean(4, True)
    clip = boolean(5)
    variance = repeated(float32(6))
    img_size = uint32(7)
    img_h = uint32(8)
    img_w = uint32(9)
    step = float32(10)
    step_h = float32(11)
    step_w = float32(12)
    offset = float32(13, 0.5)
    tf = boolean(17)
    """Field of Synopsys, as is yx_order: max_size's box comes last; the first box of a min_size of 60 is smaller."""
    yx_order = boolean(18)
    width = repeated(float32(14))
    height = repeated(float32(15))


def _width_height(layer: Layer, p: PriorBoxParameter, name: str, single: str) -> Size:
    """Return (width, height) of `img` or `step`; (0, 0) if neither form of the field is set.

    Raises NetError if both forms are set or a value is not positive.
    """
    h, w = f"{name}_h", f"{name}_w"
    if p.has(h) or p.has(w):
        if p.has(single):
            raise layer.error(f"it needs either {single}, or {h} and {w}, not both")
        size = (getattr(p, w), getattr(p, h))
    else:
        size = (getattr(p, single),) * 2
    if min(size) <= 0 and any(map(p.has, (h, w, single))):
        raise layer.error(f"{single}, {h} and {w} must be greater than 0")
    return size


def all_positive(numbers: Sequence[float]) -> bool:
    """Whether all numbers are above 0 and finite."""
    return all(0 < number < math.inf for number in numbers)


def variances(layer: Layer, p: PriorBoxParameter) -> tuple[float, ...]:
    """Return the four variances. Raises NetError if their number is wrong."""
    if len(p.variance) not in (0, 1, 4) or any(v <= 0 for v in p.variance):
        raise layer.error(f"variance must be one or four positive numbers, not {list(p.variance)}")
    return p.variance if len(p.variance) == 4 else (p.variance or (0.1,)) * 4


def _as_tensorflow(p: PriorBoxParameter, corners: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the corners, H×W×boxes×4, with the changes of `tf` and `yx_order`.

    Source: synopsys-caffe's Forward_cpu.
    """
    each = corners.shape[2] // max(1, len(p.min_size))
    for index, size in enumerate(p.min_size):
        if p.tf and math.trunc(size) == 60:
            corners[:, :, index * each] += (0.05, 0.05, -0.05, -0.05)
    return corners[..., [1, 0, 3, 2]] if p.yx_order else corners


class PriorBoxBase(LayerType):
    """Base of both types: boxes around each position of the first bottom, relative to the image size, and variances."""

    params = (PriorBoxParameter,)
    bottoms = exactly(2)

    def box_sizes(self, layer: Layer) -> list[Size]:
        """Return the sizes of the boxes at each position, in pixels."""
        raise NotImplementedError

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(PriorBoxParameter)
        _width_height(layer, p, "img", "img_size")
        _width_height(layer, p, "step", "step")
        variances(layer, p)
        count = legacy_size(layer, bottoms[0], 2) * legacy_size(layer, bottoms[0], 3) * len(self.box_sizes(layer))
        return [(1, 2, 4 * count)]

    def compute(self, layer: Layer, feature: tuple[int, int], image: tuple[int, int]) -> np.ndarray[Any, Any]:
        """Return the top, 1×2×4P, given height and width of the first bottom and of the image.

        Source: prior_box_layer.cpp PriorBoxLayer::Forward_cpu: centres and sizes in float32, corners in float64.
        """
        import numpy as np

        p = layer.get(PriorBoxParameter)
        set_image, set_step = _width_height(layer, p, "img", "img_size"), _width_height(layer, p, "step", "step")
        image_size = np.array(set_image if set_image[0] else image[::-1], dtype="float64")
        cells = np.array(feature[::-1], dtype="float32")
        step = np.array(set_step, dtype="float32") if set_step[0] else image_size.astype("float32") / cells
        y, x = np.indices(feature, dtype="float32")
        centers = ((np.stack([x, y], -1) + np.float32(p.offset)) * step)[:, :, None].astype("float64")
        half = np.array(self.box_sizes(layer), dtype="float32").astype("float64") / 2
        corners = np.concatenate([(centers - half) / image_size, (centers + half) / image_size], -1)
        corners = self._clipped(layer, _as_tensorflow(p, corners).astype("float32"))
        spread = np.broadcast_to(np.array(variances(layer, p), dtype="float32"), corners.shape)
        return np.stack([corners.reshape(-1), spread.reshape(-1)])[None]

    def _clipped(self, layer: Layer, corners: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the boxes, clipped to the image if `clip` is true.

        Raises UnsupportedError if a box reaches beyond the image and `clip` is not given.
        """
        p = layer.get(PriorBoxParameter)
        inside = corners.clip(0, 1)
        if not p.has("clip") and (inside != corners).any():
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): boxes reach beyond the image and clip is not given; its default "
                "is false in SSD, but true in SSD's first version and in some forks: set clip to true or false"
            )
        return inside if p.clip else corners

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import Tensor, nn

        layer_type = self
        # raises an error now instead of in the first forward pass
        self.compute(layer, _height_width(bottoms[0]), _height_width(bottoms[1]))

        class Priors(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cache: dict[tuple[tuple[int, int], tuple[int, int]], Tensor] = {}

            def forward(self, feature: Tensor, image: Tensor) -> Tensor:
                sizes = (_height_width(feature.shape), _height_width(image.shape))
                if sizes not in self.cache:
                    self.cache = {sizes: torch.from_numpy(layer_type.compute(layer, *sizes))}
                return self.cache[sizes].to(feature.device, copy=True)

        return Priors()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        feature, image = (_height_width(g.shape(bottom)) for bottom in bottoms)
        return g.op("Identity", self.compute(layer, feature, image))


def _height_width(shape: Sequence[int]) -> tuple[int, int]:
    height, width = ([*shape, 1, 1, 1])[2:4]
    return height, width
