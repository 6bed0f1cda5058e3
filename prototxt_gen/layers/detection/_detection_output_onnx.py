"""DetectionOutput as ONNX nodes. Every step gives the same bits as the C++ code, except for the rounding of exp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prototxt_gen.layers.detection._ssd_parameters import DetectionOutputParameter
    from prototxt_gen.layers.onnx_graph import OnnxGraph


def write_detection_output(
    g: OnnxGraph, p: DetectionOutputParameter, bottoms: Sequence[str], priors: int, top_k: int, score_threshold: float
) -> str:
    """Write the layer's nodes for loc, conf and prior; return the name of the 1×1×M×7 top."""
    loc, conf, prior = bottoms
    images = g.op("Gather", g.op("Shape", loc), _scalar(g, 0))
    boxes = _decode(g, p, loc, prior, priors)
    labels = [label for label in range(p.num_classes) if label != p.background_label_id]
    by_class = g.op("Transpose", g.op("Reshape", conf, g.const([-1, priors, p.num_classes])), perm=[0, 2, 1])
    scores = _top_k_scores(g, g.op("Gather", by_class, g.const(labels), axis=1), priors, top_k)
    if not p.share_location:
        boxes = g.op("Reshape", g.op("Gather", boxes, g.const(labels), axis=1), g.const([-1, priors, 4]))
        scores = g.op("Reshape", scores, g.const([-1, 1, priors]))
    kept = _suppress(g, p, boxes, scores, priors, score_threshold)
    image, label = _image_and_label(g, kept, labels, p.share_location)
    score = g.op("GatherND", scores, kept)
    box = g.op("GatherND", boxes, g.op("Gather", kept, g.const([0, 2]), axis=1))
    columns = [g.op("Unsqueeze", value, g.const([1])) for value in (g.op("Cast", image, to=1), label, score)]
    rows = g.op("Concat", *columns, box, axis=1)
    if 0 <= p.keep_top_k < len(labels) * priors:
        rows = _keep_top_k(g, rows, image, score, images, p.keep_top_k)
    return g.op("Unsqueeze", or_no_detections(g, rows, images), g.const([0, 1]))


def _scalar(g: OnnxGraph, number: int) -> str:
    """Write an integer constant without axes."""
    return g.op("Constant", value_int=number)


def _decode(g: OnnxGraph, p: DetectionOutputParameter, loc: str, prior: str, priors: int) -> str:
    """Write the decoding; return the boxes, N×P×4, or N×C×P×4 if each class has its own."""
    two = g.op("Reshape", prior, g.const([2, priors, 4]))
    prior_boxes, variances = (g.op("Gather", two, _scalar(g, i), axis=0) for i in (0, 1))
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
    shifts, log_scales = _halves(g, offsets)
    half_way = g.op("Mul", g.op("Add", low, high), g.const(0.5))
    center = g.op("Add", g.op("Mul", shifts, size), half_way)
    half = g.op("Mul", g.op("Mul", g.op("Exp", log_scales), size), g.const(0.5))
    return g.op("Concat", g.op("Sub", center, half), g.op("Add", center, half), axis=-1)


def _halves(g: OnnxGraph, boxes: str) -> tuple[str, ...]:
    """Split each box into its first two and its last two numbers."""
    return g.ops("Split", boxes, g.const([2, 2]), outputs=2, axis=-1)


def _top_k_scores(g: OnnxGraph, scores: str, priors: int, top_k: int) -> str:
    """Return N×K×P scores; those not among the top_k of their row are -infinity, so that suppression ignores them."""
    if not 0 <= top_k < priors:
        return scores
    values, places = g.ops("TopK", scores, g.const([top_k]), outputs=2, axis=-1)
    never = g.op("Expand", g.const(float("-inf")), g.op("Shape", scores))
    return g.op("ScatterElements", never, places, values, axis=-1)


def _suppress(
    g: OnnxGraph, p: DetectionOutputParameter, boxes: str, scores: str, priors: int, score_threshold: float
) -> str:
    """Write the non-maximum suppression; return the kept (row, class, prior) triples, M×3.

    Caffe gives no overlap to a box whose maximum is less than its minimum; ONNX would swap the corners. Such a box is
    therefore replaced by one without area.
    """
    low, high = _halves(g, boxes)
    upright = g.op("Concat", low, g.op("Max", low, high), axis=-1)
    limits = (g.const([priors]), g.const([min(p.nms_param.nms_threshold, 1.0)]), g.const([score_threshold]))
    return g.op("NonMaxSuppression", upright, scores, *limits)


def _image_and_label(g: OnnxGraph, kept: str, labels: list[int], share_location: bool) -> tuple[str, str]:
    """Return the image (int64) and the label (float) of each kept triple, M each."""
    row, place = (g.op("Gather", kept, _scalar(g, i), axis=1) for i in (0, 1))
    if not share_location:
        row, place = g.op("Div", row, _scalar(g, len(labels))), g.op("Mod", row, _scalar(g, len(labels)))
    return row, g.op("Gather", g.const([float(label) for label in labels]), place)


def _keep_top_k(g: OnnxGraph, rows: str, image: str, score: str, images: str, keep: int) -> str:
    """Return only the rows that are among the `keep` best of their image, in unchanged order."""
    _, order = g.ops("TopK", score, g.op("Shape", score), outputs=2)
    sorted_images = g.op("Unsqueeze", g.op("Gather", image, order), g.const([1]))
    is_image = g.op("Cast", g.op("Equal", sorted_images, g.op("Range", _scalar(g, 0), images, _scalar(g, 1))), to=7)
    rank = g.op("ReduceSum", g.op("Mul", g.op("CumSum", is_image, _scalar(g, 0)), is_image), g.const([1]), keepdims=0)
    kept = g.op("Compress", order, g.op("LessOrEqual", rank, _scalar(g, keep)), axis=0)
    places, _ = g.ops("TopK", kept, g.op("Shape", kept), outputs=2, largest=0)
    return g.op("Gather", rows, places, axis=0)


def or_no_detections(g: OnnxGraph, rows: str, images: str) -> str:
    """Return the rows; if there are none, one row (image, -1, -1, -1, -1, -1, -1) for each image."""
    none = g.op("Equal", g.op("Gather", g.op("Shape", rows), _scalar(g, 0)), _scalar(g, 0))
    count = g.op("Where", none, images, _scalar(g, 0))
    ids = g.op("Cast", g.op("Range", _scalar(g, 0), count, _scalar(g, 1)), to=1)
    shape = g.op("Concat", g.op("Unsqueeze", count, g.const([0])), g.const([6]), axis=0)
    fake = g.op("Concat", g.op("Unsqueeze", ids, g.const([1])), g.op("Expand", g.const(-1.0), shape), axis=1)
    return g.op("Concat", rows, fake, axis=0)
