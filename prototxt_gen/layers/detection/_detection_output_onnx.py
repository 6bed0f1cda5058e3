"""DetectionOutput as ONNX nodes. Every step is bit for bit what the C++ does, but for the rounding of exp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prototxt_gen.layers.detection._ssd_parameters import DetectionOutputParameter
    from prototxt_gen.layers.onnx_graph import OnnxGraph


def lower(
    g: OnnxGraph, p: DetectionOutputParameter, bottoms: Sequence[str], priors: int, top_k: int, least: float
) -> str:
    """Write the layer on loc, conf and prior; return the 1×1×M×7 top."""
    loc, conf, prior = bottoms
    images = g.op("Gather", g.op("Shape", loc), _whole(g, 0))
    boxes = _decode(g, p, loc, prior, priors)
    labels = [label for label in range(p.num_classes) if label != p.background_label_id]
    by_class = g.op("Transpose", g.op("Reshape", conf, g.const([-1, priors, p.num_classes])), perm=[0, 2, 1])
    scores = _best(g, g.op("Gather", by_class, g.const(labels), axis=1), priors, top_k)
    if not p.share_location:
        boxes = g.op("Reshape", g.op("Gather", boxes, g.const(labels), axis=1), g.const([-1, priors, 4]))
        scores = g.op("Reshape", scores, g.const([-1, 1, priors]))
    kept = _suppress(g, p, boxes, scores, priors, least)
    image, label = _image_and_label(g, kept, labels, p.share_location)
    score = g.op("GatherND", scores, kept)
    box = g.op("GatherND", boxes, g.op("Gather", kept, g.const([0, 2]), axis=1))
    columns = [g.op("Unsqueeze", one, g.const([1])) for one in (g.op("Cast", image, to=1), label, score)]
    rows = g.op("Concat", *columns, box, axis=1)
    if 0 <= p.keep_top_k < len(labels) * priors:
        rows = _best_of_image(g, rows, image, score, images, p.keep_top_k)
    return g.op("Unsqueeze", or_nothing(g, rows, images), g.const([0, 1]))


def _whole(g: OnnxGraph, number: int) -> str:
    """A whole number of no axes."""
    return g.op("Constant", value_int=number)


def _decode(g: OnnxGraph, p: DetectionOutputParameter, loc: str, prior: str, priors: int) -> str:
    """Return the boxes, N×P×4, or N×C×P×4 where each class has its own."""
    two = g.op("Reshape", prior, g.const([2, priors, 4]))
    prior_boxes, variances = (g.op("Gather", two, _whole(g, i), axis=0) for i in (0, 1))
    if p.share_location:
        offsets = g.op("Reshape", loc, g.const([-1, priors, 4]))
    else:
        by_prior = g.op("Reshape", loc, g.const([-1, priors, p.num_classes, 4]))
        offsets = g.op("Transpose", by_prior, perm=[0, 2, 1, 3])
    if not p.variance_encoded_in_target:
        offsets = g.op("Mul", variances, offsets)
    if p.code_type == "CORNER":
        return g.op("Add", prior_boxes, offsets)
    low, high = _halves(g, prior_boxes)
    size = g.op("Sub", high, low)
    if p.code_type == "CORNER_SIZE":
        return g.op("Add", prior_boxes, g.op("Mul", offsets, g.op("Concat", size, size, axis=-1)))
    moves, growths = _halves(g, offsets)
    half_way = g.op("Mul", g.op("Add", low, high), g.const(0.5))
    center = g.op("Add", g.op("Mul", moves, size), half_way)
    half = g.op("Mul", g.op("Mul", g.op("Exp", growths), size), g.const(0.5))
    return g.op("Concat", g.op("Sub", center, half), g.op("Add", center, half), axis=-1)


def _halves(g: OnnxGraph, boxes: str) -> tuple[str, ...]:
    """Return the first two and the last two numbers of each box."""
    return g.ops("Split", boxes, g.const([2, 2]), outputs=2, axis=-1)


def _best(g: OnnxGraph, scores: str, priors: int, top_k: int) -> str:
    """Return N×K×P scores with all but the top_k greatest of each row at -infinity, out of the suppression's sight."""
    if not 0 <= top_k < priors:
        return scores
    values, places = g.ops("TopK", scores, g.const([top_k]), outputs=2, axis=-1)
    never = g.op("Expand", g.const(float("-inf")), g.op("Shape", scores))
    return g.op("ScatterElements", never, places, values, axis=-1)


def _suppress(g: OnnxGraph, p: DetectionOutputParameter, boxes: str, scores: str, priors: int, least: float) -> str:
    """Return the kept (row, class, prior) triples, M×3.

    ONNX turns a box that is inside out around; in Caffe it overlaps nothing. So it is made one without area first.
    """
    low, high = _halves(g, boxes)
    upright = g.op("Concat", low, g.op("Max", low, high), axis=-1)
    limits = (g.const([priors]), g.const([min(p.nms_param.nms_threshold, 1.0)]), g.const([least]))
    return g.op("NonMaxSuppression", upright, scores, *limits)


def _image_and_label(g: OnnxGraph, kept: str, labels: list[int], share_location: bool) -> tuple[str, str]:
    """Return the image (int64) and the label (float) of each kept triple, M each."""
    row, place = (g.op("Gather", kept, _whole(g, i), axis=1) for i in (0, 1))
    if not share_location:
        row, place = g.op("Div", row, _whole(g, len(labels))), g.op("Mod", row, _whole(g, len(labels)))
    return row, g.op("Gather", g.const([float(label) for label in labels]), place)


def _best_of_image(g: OnnxGraph, rows: str, image: str, score: str, images: str, keep: int) -> str:
    """Return only those rows that are among the `keep` best of their image, in unchanged order."""
    _, order = g.ops("TopK", score, g.op("Shape", score), outputs=2)
    sorted_images = g.op("Unsqueeze", g.op("Gather", image, order), g.const([1]))
    mine = g.op("Cast", g.op("Equal", sorted_images, g.op("Range", _whole(g, 0), images, _whole(g, 1))), to=7)
    rank = g.op("ReduceSum", g.op("Mul", g.op("CumSum", mine, _whole(g, 0)), mine), g.const([1]), keepdims=0)
    kept = g.op("Compress", order, g.op("LessOrEqual", rank, _whole(g, keep)), axis=0)
    places, _ = g.ops("TopK", kept, g.op("Shape", kept), outputs=2, largest=0)
    return g.op("Gather", rows, places, axis=0)


def or_nothing(g: OnnxGraph, rows: str, images: str) -> str:
    """Return the rows, or one row image, -1, … for each image where there are none at all."""
    none = g.op("Equal", g.op("Gather", g.op("Shape", rows), _whole(g, 0)), _whole(g, 0))
    count = g.op("Where", none, images, _whole(g, 0))
    ids = g.op("Cast", g.op("Range", _whole(g, 0), count, _whole(g, 1)), to=1)
    shape = g.op("Concat", g.op("Unsqueeze", count, g.const([0])), g.const([6]), axis=0)
    fake = g.op("Concat", g.op("Unsqueeze", ids, g.const([1])), g.op("Expand", g.const(-1.0), shape), axis=1)
    return g.op("Concat", rows, fake, axis=0)
