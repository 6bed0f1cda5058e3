"""Proposal as ONNX nodes: the same steps as `proposal.propose`.

ONNX's NonMaxSuppression cannot be used, because in Proposal a box includes its last pixel in its width and height.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.layers.detection._proposal_rules import ProposalRules, shifted_anchors

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.layers.onnx_graph import OnnxGraph

    Floats = np.ndarray[Any, Any]

_REMOVED = -3e38
"""Score of a removed box."""


def write_proposal(g: OnnxGraph, rules: ProposalRules, bottoms: Sequence[str]) -> tuple[str, str]:
    """Write the layer's nodes for scores, box deltas and image info; return the regions, R×5, and their scores."""
    score, delta, info = bottoms
    info = g.op("Reshape", info, g.const([-1]))
    of_images = [_regions_of_image(g, rules, index, score, delta, info) for index in range(g.shape(score)[0])]
    regions, scores = zip(*of_images, strict=True)
    return g.op("Concat", *regions, axis=0), g.op("Concat", *scores, axis=0)


def _regions_of_image(
    g: OnnxGraph, rules: ProposalRules, index: int, score: str, delta: str, info: str
) -> tuple[str, str]:
    """Return the regions of one image, with the image's number in the first column, and their scores."""
    count = len(rules.anchors)
    *_, height, width = g.shape(score)
    anchors = shifted_anchors(rules, height, width)
    deltas, scores = (g.op("Gather", value, g.op("Constant", value_int=index)) for value in (delta, score))
    deltas = g.op("Reshape", deltas, g.const([count, 4, height, width]))
    deltas = g.op("Reshape", g.op("Transpose", deltas, perm=[2, 3, 0, 1]), g.const([-1, 4]))
    scores = g.op("Slice", scores, g.const([count]), g.const([2 * count]), g.const([0]))
    scores = g.op("Reshape", g.op("Transpose", scores, perm=[1, 2, 0]), g.const([-1]))
    boxes = _moved_boxes(g, anchors, deltas, info)
    pre_nms = min(rules.pre_nms_topn, len(anchors))
    large = _is_large_enough(g, rules, boxes, info)
    if rules.drops_small:
        scores = g.op("Where", g.op("Cast", large, to=9), scores, g.const(_REMOVED))
    else:
        scores = g.op("Mul", scores, large)
    best, order = g.ops("TopK", scores, g.const([pre_nms]), outputs=2)
    boxes = g.op("Gather", boxes, order)
    kept = _suppress(g, rules, boxes, g.op("Greater", best, g.const(_REMOVED)), pre_nms)
    rows = g.op("Compress", boxes, kept, axis=0)
    return g.op("Pad", rows, g.const([0, 1, 0, 0]), g.const(float(index))), g.op("Compress", best, kept, axis=0)


def _moved_boxes(g: OnnxGraph, anchors: Floats, deltas: str, info: str) -> str:
    """Return the anchors moved by the deltas and clipped to the image."""
    sizes = anchors[:, 2:] - anchors[:, :2] + 1
    shift, log_scale = g.ops("Split", deltas, g.const([2, 2]), outputs=2, axis=1)
    center = g.op("Add", g.op("Mul", shift, sizes), anchors[:, :2] + sizes / 2)
    half = g.op("Mul", g.op("Mul", g.op("Exp", log_scale), sizes), g.const(0.5))
    boxes = g.op("Concat", g.op("Sub", center, half), g.op("Add", center, half), axis=1)
    limit = g.op("Sub", g.op("Gather", info, g.const([1, 0, 1, 0])), g.const(1.0))
    return g.op("Max", g.const(0.0), g.op("Min", boxes, limit))


def _sides(g: OnnxGraph, boxes: str) -> str:
    """Return the width and height of each box, including its last pixel."""
    low, high = g.ops("Split", boxes, g.const([2, 2]), outputs=2, axis=1)
    return g.op("Add", g.op("Sub", high, low), g.const(1.0))


def _is_large_enough(g: OnnxGraph, rules: ProposalRules, boxes: str, info: str) -> str:
    """Return 1 for each box that is large enough, 0 for the others."""
    min_sides = g.op("Mul", g.op("Gather", info, g.const(list(rules.scale_columns))), g.const(float(rules.min_size)))
    large = g.op("Cast", g.op("GreaterOrEqual", _sides(g, boxes), min_sides), to=1)
    return g.op("ReduceMin", large, g.const([1]), keepdims=0)


def _suppress(g: OnnxGraph, rules: ProposalRules, boxes: str, alive: str, count: int) -> str:
    """Return which of the boxes (best first) non-maximum suppression keeps, among those that are `alive`."""
    from onnx import TensorProto, helper

    areas = g.op("ReduceProd", _sides(g, boxes), g.const([1]), keepdims=0)
    body = g.subgraph("suppress")
    body_inputs = [body.name(name) for name in ("place", "on", "alive", "kept", "count")]
    body_outputs = _suppression_step(body, rules, boxes, areas, body_inputs, count)
    kinds = [TensorProto.INT64, TensorProto.BOOL, TensorProto.BOOL, TensorProto.BOOL, TensorProto.INT64]
    shapes = [[], [], [count], [count], []]
    inputs, outputs = (
        [helper.make_tensor_value_info(*info) for info in zip(names, kinds[skip:], shapes[skip:], strict=True)]
        for names, skip in ((body_inputs, 0), (body_outputs, 1))
    )
    graph = helper.make_graph(body.nodes, body.scope, inputs, outputs, body.initializers)
    none = g.op("Expand", _bool(g, 0), g.const([count]))
    start = (g.const([count], "trips"), _bool(g, 1), alive, none, g.op("Constant", value_int=0))
    return g.ops("Loop", *start, outputs=3, body=graph)[1]


def _bool(g: OnnxGraph, value: int) -> str:
    """Write a boolean constant without axes."""
    return g.op("Cast", g.op("Constant", value_int=value), to=9)


def _suppression_step(
    g: OnnxGraph, rules: ProposalRules, boxes: str, areas: str, inputs: Sequence[str], boxes_count: int
) -> list[str]:
    """Write one step of the loop: keep the box at `place` if it is alive, and drop the boxes that overlap it.

    Source: nms.cpp nms_cpu, iou.
    """
    place, _, alive, kept, count = inputs
    is_alive = g.op("Gather", alive, place)
    box, area = g.op("Gather", boxes, place), g.op("Gather", areas, place)
    ends = [g.ops("Split", value, g.const([2, 2]), outputs=2, axis=-1) for value in (box, boxes)]
    gaps = g.op("Sub", g.op("Min", ends[0][1], ends[1][1]), g.op("Max", ends[0][0], ends[1][0]))
    nearest = g.op("ReduceMin", gaps, g.const([1]), keepdims=0)
    touching = g.op("GreaterOrEqual", nearest, g.const(0.0 if rules.gap_is_apart else -1.0))
    product = g.op("ReduceProd", g.op("Add", gaps, g.const(1.0)), g.const([1]), keepdims=0)
    shared = g.op("Where", touching, product, g.const(0.0))
    overlap = g.op("Div", shared, g.op("Sub", g.op("Add", area, areas), shared))
    suppressed = g.op("And", g.op("Greater", overlap, g.const(float(rules.nms_thresh))), is_alive)
    at_place = g.op("And", g.op("Equal", g.const(list(range(boxes_count))), place), is_alive)
    count = g.op("Add", count, g.op("Cast", is_alive, to=7))
    go_on = g.op("Less", count, g.op("Constant", value_int=rules.post_nms_topn))
    return [go_on, g.op("And", alive, g.op("Not", suppressed)), g.op("Or", kept, at_place), count]
