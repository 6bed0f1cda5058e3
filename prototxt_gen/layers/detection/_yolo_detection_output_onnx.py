"""The detections of YOLO v2 and v3 as ONNX nodes: one non-maximum suppression over all scales and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from prototxt_gen.layers.detection._detection_output_onnx import or_no_detections

if TYPE_CHECKING:
    from prototxt_gen.layers.onnx_graph import OnnxGraph


class YoloSettings(NamedTuple):
    """Settings of a YOLO detection layer. `anchors` and `scales` have one entry for each bottom."""

    anchors: tuple[tuple[tuple[float, float], ...], ...]
    scales: tuple[int, ...]
    """Size of a cell in the unit of the anchors."""
    classes: int
    confidence_threshold: float
    nms_threshold: float
    each_class: bool
    """Whether each class of a box above the threshold is a detection; otherwise only its best class is."""


def write_yolo_detections(g: OnnxGraph, settings: YoloSettings, bottoms: Sequence[str]) -> str:
    """Write the layer's nodes; return the name of the 1×1×M×7 top."""
    parts = [_decode(g, settings, x, index) for index, x in enumerate(bottoms)]
    boxes, objects, classes = (g.op("Concat", *part, axis=0) for part in zip(*parts, strict=True))
    boxes, labels, scores = (_each_class if settings.each_class else _best_class)(g, settings, boxes, objects, classes)
    boxes, labels, scores = _kept_after_nms(g, settings, boxes, labels, scores)
    center, size = g.ops("Split", boxes, g.const([2, 2]), outputs=2, axis=1)
    half = g.op("Mul", size, g.const(0.5))
    columns = [g.op("Unsqueeze", value, g.const([1])) for value in (g.op("Add", labels, g.const(1.0)), scores)]
    rows = g.op("Concat", *columns, g.op("Sub", center, half), g.op("Add", center, half), axis=1)
    rows = g.op("Pad", rows, g.const([0, 1, 0, 0]))
    images = g.op("Gather", g.op("Shape", bottoms[0]), g.op("Constant", value_int=0))
    return g.op("Unsqueeze", or_no_detections(g, rows, images), g.const([0, 1]))


def _decode(g: OnnxGraph, settings: YoloSettings, x: str, index: int) -> tuple[str, str, str]:
    """Return the boxes (centre and size, M×4), the objectness logits (M×1) and the class logits (M×C) of one bottom.

    The logits are float64.
    """
    import numpy as np

    _, channels, high, wide = g.shape(x)
    anchors, scale = np.asarray(settings.anchors[index], dtype="float32"), settings.scales[index]
    each = channels // len(anchors)
    split = g.op("Reshape", x, g.const([0, len(anchors), each, high * wide]))
    rows = g.op("Reshape", g.op("Transpose", split, perm=[0, 3, 1, 2]), g.const([-1, len(anchors), each]))
    parts = [2, 2, 1, settings.classes] + ([each - 5 - settings.classes] if each > 5 + settings.classes else [])
    offsets, log_sizes, objects, classes, *_ = g.ops("Split", rows, g.const(parts), outputs=len(parts), axis=-1)
    offsets, log_sizes = (
        g.op("Reshape", value, g.const([-1, high * wide, len(anchors), 2])) for value in (offsets, log_sizes)
    )
    corner = np.stack(np.meshgrid(np.arange(wide), np.arange(high)), -1).reshape(-1, 1, 2).astype("float32")
    size = np.array([wide, high], dtype="float32")
    center = g.op("Div", g.op("Add", g.op("Sigmoid", offsets), corner), size)
    sides = g.op("Div", g.op("Mul", g.op("Exp", log_sizes), anchors), size * np.float32(scale))
    boxes = g.op("Reshape", g.op("Concat", center, sides, axis=-1), g.const([-1, 4]))
    # in float64, so that all runtimes sort nearly equal scores alike
    objects, classes = (
        g.op("Cast", g.op("Reshape", value, g.const([-1, count])), to=11)
        for value, count in ((objects, 1), (classes, settings.classes))
    )
    return boxes, objects, classes


def _each_class(g: OnnxGraph, settings: YoloSettings, boxes: str, objects: str, classes: str) -> tuple[str, str, str]:
    """Return box, label and score of each class of each box whose score is above the threshold."""
    scores = g.op("Cast", g.op("Mul", g.op("Sigmoid", classes), g.op("Sigmoid", objects)), to=1)
    places = g.op("NonZero", g.op("Greater", scores, g.const(settings.confidence_threshold)))
    index, labels = (g.op("Gather", places, g.op("Constant", value_int=i)) for i in (0, 1))
    chosen = g.op("GatherND", scores, g.op("Transpose", places, perm=[1, 0]))
    return g.op("Gather", boxes, index), g.op("Cast", labels, to=1), chosen


def _best_class(g: OnnxGraph, settings: YoloSettings, boxes: str, objects: str, classes: str) -> tuple[str, str, str]:
    """Return each box whose best score is at least the threshold, with its best class and score."""
    shares = g.op("Softmax", classes, axis=-1)
    best = g.op("Mul", g.op("Sigmoid", objects), g.op("ReduceMax", shares, g.const([1])))
    scores = g.op("Squeeze", g.op("Cast", best, to=1), g.const([1]))
    labels = g.op("Cast", g.op("ArgMax", shares, axis=1, keepdims=0), to=1)
    reached = g.op("GreaterOrEqual", scores, g.const(settings.confidence_threshold))
    boxes, labels, scores = (g.op("Compress", value, reached, axis=0) for value in (boxes, labels, scores))
    return boxes, labels, scores


def _kept_after_nms(g: OnnxGraph, settings: YoloSettings, boxes: str, labels: str, scores: str) -> tuple[str, str, str]:
    """Return the boxes, labels and scores that non-maximum suppression keeps, best first.

    Caffe suppresses overlaps equal to the threshold, ONNX only greater ones, so ONNX gets the next smaller float.
    """
    import numpy as np

    below = np.nextafter(np.float32(min(settings.nms_threshold, 2.0)), np.float32(0))
    limits = (g.op("Shape", scores), g.const([float(min(below, 1.0))]))
    batch = (g.op("Unsqueeze", boxes, g.const([0])), g.op("Unsqueeze", scores, g.const([0, 1])))
    kept = g.op("NonMaxSuppression", *batch, *limits, center_point_box=1)
    place = g.op("Gather", kept, g.op("Constant", value_int=2), axis=1)
    boxes, labels, scores = (g.op("Gather", value, place) for value in (boxes, labels, scores))
    return boxes, labels, scores
