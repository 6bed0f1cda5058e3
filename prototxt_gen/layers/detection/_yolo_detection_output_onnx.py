"""YOLO's detections as ONNX nodes: all boxes of all scales and images, of which one suppression keeps the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from prototxt_gen.layers.detection._detection_output_onnx import or_nothing

if TYPE_CHECKING:
    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Found(NamedTuple):
    """What a layer of either type looks for. `anchors` and `scales` have an entry for each bottom."""

    anchors: tuple[tuple[tuple[float, float], ...], ...]
    scales: tuple[int, ...]
    """How many units of the anchors a cell has."""
    classes: int
    least: float
    threshold: float
    each_class: bool
    """Whether a box may be several detections, each class by itself; else its best class counts."""


def lower(g: OnnxGraph, found: Found, bottoms: Sequence[str]) -> str:
    """Write the layer; return the 1×1×M×7 top."""
    parts = [_decode(g, found, x, which) for which, x in enumerate(bottoms)]
    boxes, objects, classes = (g.op("Concat", *some, axis=0) for some in zip(*parts, strict=True))
    boxes, labels, scores = (_each_class if found.each_class else _best_class)(g, found, boxes, objects, classes)
    boxes, labels, scores = _suppressed(g, found, boxes, labels, scores)
    center, size = g.ops("Split", boxes, g.const([2, 2]), outputs=2, axis=1)
    half = g.op("Mul", size, g.const(0.5))
    columns = [g.op("Unsqueeze", one, g.const([1])) for one in (g.op("Add", labels, g.const(1.0)), scores)]
    rows = g.op("Concat", *columns, g.op("Sub", center, half), g.op("Add", center, half), axis=1)
    rows = g.op("Pad", rows, g.const([0, 1, 0, 0]))
    images = g.op("Gather", g.op("Shape", bottoms[0]), g.op("Constant", value_int=0))
    return g.op("Unsqueeze", or_nothing(g, rows, images), g.const([0, 1]))


def _decode(g: OnnxGraph, found: Found, x: str, which: int) -> tuple[str, str, str]:
    """Return boxes as centre and size, logits of being an object and of classes, double: M×4, M×1, M×C."""
    import numpy as np

    _, channels, high, wide = g.shape(x)
    anchors, scale = np.asarray(found.anchors[which], dtype="float32"), found.scales[which]
    each = channels // len(anchors)
    split = g.op("Reshape", x, g.const([0, len(anchors), each, high * wide]))
    rows = g.op("Reshape", g.op("Transpose", split, perm=[0, 3, 1, 2]), g.const([-1, len(anchors), each]))
    parts = [2, 2, 1, found.classes] + ([each - 5 - found.classes] if each > 5 + found.classes else [])
    place, growth, objects, classes, *_ = g.ops("Split", rows, g.const(parts), outputs=len(parts), axis=-1)
    place, growth = (g.op("Reshape", one, g.const([-1, high * wide, len(anchors), 2])) for one in (place, growth))
    corner = np.stack(np.meshgrid(np.arange(wide), np.arange(high)), -1).reshape(-1, 1, 2).astype("float32")
    size = np.array([wide, high], dtype="float32")
    center = g.op("Div", g.op("Add", g.op("Sigmoid", place), corner), size)
    sides = g.op("Div", g.op("Mul", g.op("Exp", growth), anchors), size * np.float32(scale))
    boxes = g.op("Reshape", g.op("Concat", center, sides, axis=-1), g.const([-1, 4]))
    # in double, so that near ties are sorted as by other runtimes
    objects, classes = (
        g.op("Cast", g.op("Reshape", one, g.const([-1, count])), to=11)
        for one, count in ((objects, 1), (classes, found.classes))
    )
    return boxes, objects, classes


def _each_class(g: OnnxGraph, found: Found, boxes: str, objects: str, classes: str) -> tuple[str, str, str]:
    """Return box, label and score of each class of each box that is above the threshold."""
    scores = g.op("Cast", g.op("Mul", g.op("Sigmoid", classes), g.op("Sigmoid", objects)), to=1)
    places = g.op("NonZero", g.op("Greater", scores, g.const(found.least)))
    which, labels = (g.op("Gather", places, g.op("Constant", value_int=i)) for i in (0, 1))
    chosen = g.op("GatherND", scores, g.op("Transpose", places, perm=[1, 0]))
    return g.op("Gather", boxes, which), g.op("Cast", labels, to=1), chosen


def _best_class(g: OnnxGraph, found: Found, boxes: str, objects: str, classes: str) -> tuple[str, str, str]:
    """Return each box that reaches the threshold, with its best class and score."""
    shares = g.op("Softmax", classes, axis=-1)
    best = g.op("Mul", g.op("Sigmoid", objects), g.op("ReduceMax", shares, g.const([1])))
    scores = g.op("Squeeze", g.op("Cast", best, to=1), g.const([1]))
    labels = g.op("Cast", g.op("ArgMax", shares, axis=1, keepdims=0), to=1)
    reached = g.op("GreaterOrEqual", scores, g.const(found.least))
    boxes, labels, scores = (g.op("Compress", one, reached, axis=0) for one in (boxes, labels, scores))
    return boxes, labels, scores


def _suppressed(g: OnnxGraph, found: Found, boxes: str, labels: str, scores: str) -> tuple[str, str, str]:
    """Return what is kept, best first. Caffe suppresses from the threshold on, ONNX above it: so one step less."""
    import numpy as np

    below = np.nextafter(np.float32(min(found.threshold, 2.0)), np.float32(0))
    limits = (g.op("Shape", scores), g.const([float(min(below, 1.0))]))
    batch = (g.op("Unsqueeze", boxes, g.const([0])), g.op("Unsqueeze", scores, g.const([0, 1])))
    kept = g.op("NonMaxSuppression", *batch, *limits, center_point_box=1)
    place = g.op("Gather", kept, g.op("Constant", value_int=2), axis=1)
    boxes, labels, scores = (g.op("Gather", one, place) for one in (boxes, labels, scores))
    return boxes, labels, scores
