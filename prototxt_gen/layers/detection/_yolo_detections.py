"""The base class of YoloDetectionOutput and Yolov3DetectionOutput."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType, show_all
from prototxt_gen.layers.detection._yolo_detection_output_onnx import YoloSettings, write_yolo_detections
from prototxt_gen.layers.example import normal

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.layers.onnx_graph import OnnxGraph


def anchor_sizes(layer: Layer, biases: Sequence[float], indices: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """Return (width, height) of the anchors with these indices. Raises NetError if there are too few biases."""
    if 2 * max(indices, default=0) + 1 >= len(biases):
        raise layer.error(
            f"it has {len(biases)} biases; the width and height of anchor {max(indices, default=0)} are missing"
        )
    return tuple((biases[2 * i], biases[2 * i + 1]) for i in indices)


class YoloDetectionsBase(LayerType):
    """Base of both types: checks of the bottoms, and the ONNX form."""

    sized_by_data = True

    def settings(self, layer: Layer) -> YoloSettings:
        """Return the settings of a layer. Raises NetError if its parameters are not valid."""
        raise NotImplementedError

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        settings = self.settings(layer)
        if any(len(bottom) != 4 or bottom[0] != bottoms[0][0] for bottom in bottoms):
            raise layer.error(f"its bottoms are {show_all(bottoms)}; it needs N×C×H×W with equal batch sizes")
        for bottom, anchors in zip(bottoms, settings.anchors, strict=True):
            if not self.has_valid_channels(bottom[1], len(anchors), 5 + settings.classes):
                raise layer.error(
                    f"its bottom {show(bottom)} needs {len(anchors)}·(5 + num_classes) channels, "
                    f"{len(anchors) * (5 + settings.classes)}"
                )
        return [(1, 1, 1, 7)]

    def has_valid_channels(self, channels: int, anchors: int, each: int) -> bool:
        """Whether a bottom with this number of channels fits `anchors` anchors with `each` channels each."""
        return channels == anchors * each

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        settings = self.settings(layer)
        if not settings.nms_threshold > 0:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): with nms_threshold {settings.nms_threshold:g} Caffe keeps the "
                "best box only; ONNX's NonMaxSuppression cannot do that"
            )
        return write_yolo_detections(g, settings, bottoms)


def random_logits(rng: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
    """Draw from a normal distribution of standard deviation 1.5."""
    return normal(rng, shape) * 1.5
