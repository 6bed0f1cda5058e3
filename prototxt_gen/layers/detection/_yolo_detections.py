"""S"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType, show_all
from prototxt_gen.layers.detection._yolo_detection_output_onnx import Found, lower
from prototxt_gen.layers.example import normal

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.layers.onnx_graph import OnnxGraph


def anchor_sizes(layer: Layer, biases: Sequence[float], wanted: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """Return the sizes of the anchors of these indices."""
    if 2 * max(wanted, default=0) + 1 >= len(biases):
        raise layer.error(f"it has {len(biases)} biases; it needs width and height of anchor {max(wanted, default=0)}")
    return tuple((biases[2 * i], biases[2 * i + 1]) for i in wanted)


class YoloDetectionsBase(LayerType):
    """What both share: the bottoms' checks and the two forms."""

    sized_by_data = True

    def found(self, layer: Layer) -> Found:
        raise NotImplementedError

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        found = self.found(layer)
        if any(len(bottom) != 4 or bottom[0] != bottoms[0][0] for bottom in bottoms):
            raise layer.error(f"its bottoms are {show_all(bottoms)}; it needs N×C×H×W of one batch size")
        for bottom, anchors in zip(bottoms, found.anchors, strict=True):
            if not self.fits(bottom[1], len(anchors), 5 + found.classes):
                raise layer.error(
                    f"its bottom {show(bottom)} needs {len(anchors)}·(5 + num_classes) channels, "
                    f"{len(anchors) * (5 + found.classes)}"
                )
        return [(1, 1, 1, 7)]

    def fits(self, channels: int, anchors: int, each: int) -> bool:
        return channels == anchors * each

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        found = self.found(layer)
        if not found.threshold > 0:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): with nms_threshold {found.threshold:g} Caffe keeps the best box "
                "alone; ONNX's NonMaxSuppression cannot"
            )
        return lower(g, found, bottoms)


def random_logits(rng: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
    return normal(rng, shape) * 1.5
