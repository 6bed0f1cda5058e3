"""Proposal as ONNX nodes: the steps of `proposal.propose`. ONNX's own suppression counts a pixel's width otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.layers.detection._proposal_rules import Rules, positions

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.layers.onnx_graph import OnnxGraph

    Floats = np.ndarray[Any, Any]

_LEFT_OUT = -3e38
"""The score of a box that does not take part."""


def lower(g: OnnxGraph, rules: Rules, bottoms: Sequence[str]) -> tuple[str, str]:
    """Write the layer on scores, moves and image; return the regions, R×5, and their scores."""
    score, move, info = bottoms
    image = g.op("Reshape", info, g.const([-1]))
    made = [_of_image(g, rules, index, score, move, image) for index in range(g.shape(score)[0])]
    regions, scores = zip(*made, strict=True)
    return g.op("Concat", *regions, axis=0), g.op("Concat", *scores, axis=0)


def _of_image(g: OnnxGraph, rules: Rules, index: int, score: str, move: str, image: str) -> tuple[str, str]:
    """Return the regions of one image, the first column its number, and their scores."""
    count = len(rules.anchors)
    *_, height, width = g.shape(score)
    base = positions(rules, height, width)
    moves, marks = (g.op("Gather", one, g.op("Constant", value_int=index)) for one in (move, score))
    moves = g.op("Reshape", moves, g.const([count, 4, height, width]))
    moves = g.op("Reshape", g.op("Transpose", moves, perm=[2, 3, 0, 1]), g.const([-1, 4]))
    marks = g.op("Slice", marks, g.const([count]), g.const([2 * count]), g.const([0]))
    marks = g.op("Reshape", g.op("Transpose", marks, perm=[1, 2, 0]), g.const([-1]))
    boxes = _moved(g, base, moves, image)
    most = min(rules.pre_nms_topn, len(base))
    large = _large(g, rules, boxes, image)
    if rules.drops_small:
        marks = g.op("Where", g.op("Cast", large, to=9), marks, g.const(_LEFT_OUT))
    else:
        marks = g.op("Mul", marks, large)
    best, order = g.ops("TopK", marks, g.const([most]), outputs=2)
    boxes = g.op("Gather", boxes, order)
    kept = _suppress(g, rules, boxes, g.op("Greater", best, g.const(_LEFT_OUT)), most)
    rows = g.op("Compress", boxes, kept, axis=0)
    return g.op("Pad", rows, g.const([0, 1, 0, 0]), g.const(float(index))), g.op("Compress", best, kept, axis=0)


def _moved(g: OnnxGraph, base: Floats, moves: str, image: str) -> str:
    """Return the moved boxes, clipped to the image."""
    sizes = base[:, 2:] - base[:, :2] + 1
    shift, growth = g.ops("Split", moves, g.const([2, 2]), outputs=2, axis=1)
    center = g.op("Add", g.op("Mul", shift, sizes), base[:, :2] + sizes / 2)
    half = g.op("Mul", g.op("Mul", g.op("Exp", growth), sizes), g.const(0.5))
    boxes = g.op("Concat", g.op("Sub", center, half), g.op("Add", center, half), axis=1)
    limit = g.op("Sub", g.op("Gather", image, g.const([1, 0, 1, 0])), g.const(1.0))
    return g.op("Max", g.const(0.0), g.op("Min", boxes, limit))


def _sides(g: OnnxGraph, boxes: str) -> str:
    low, high = g.ops("Split", boxes, g.const([2, 2]), outputs=2, axis=1)
    return g.op("Add", g.op("Sub", high, low), g.const(1.0))


def _large(g: OnnxGraph, rules: Rules, boxes: str, image: str) -> str:
    """Return 1 for each box that is large enough, 0 for the others."""
    least = g.op("Mul", g.op("Gather", image, g.const(list(rules.scales_at))), g.const(float(rules.min_size)))
    large = g.op("Cast", g.op("GreaterOrEqual", _sides(g, boxes), least), to=1)
    return g.op("ReduceMin", large, g.const([1]), keepdims=0)


def _suppress(g: OnnxGraph, rules: Rules, boxes: str, alive: str, most: int) -> str:
    """Return which of the boxes alive, best first, are kept: those that no kept one before overlaps too much."""
    from onnx import TensorProto, helper

    areas = g.op("ReduceProd", _sides(g, boxes), g.const([1]), keepdims=0)
    body = g.subgraph("suppress")
    given = [body.name(name) for name in ("place", "on", "alive", "kept", "count")]
    made = _step(body, rules, boxes, areas, given, most)
    kinds = [TensorProto.INT64, TensorProto.BOOL, TensorProto.BOOL, TensorProto.BOOL, TensorProto.INT64]
    shapes = [[], [], [most], [most], []]
    inputs, outputs = (
        [helper.make_tensor_value_info(*info) for info in zip(names, kinds[skip:], shapes[skip:], strict=True)]
        for names, skip in ((given, 0), (made, 1))
    )
    graph = helper.make_graph(body.nodes, body.scope, inputs, outputs, body.initializers)
    none = g.op("Expand", _truth(g, 0), g.const([most]))
    start = (g.const([most], "trips"), _truth(g, 1), alive, none, g.op("Constant", value_int=0))
    return g.ops("Loop", *start, outputs=3, body=graph)[1]


def _truth(g: OnnxGraph, value: int) -> str:
    return g.op("Cast", g.op("Constant", value_int=value), to=9)


def _step(g: OnnxGraph, rules: Rules, boxes: str, areas: str, given: Sequence[str], most: int) -> list[str]:
    """Keep the box at one place if it is alive, with what it suppresses. Source: nms.cpp nms_cpu, iou."""
    place, _, alive, kept, count = given
    mine = g.op("Gather", alive, place)
    box, area = g.op("Gather", boxes, place), g.op("Gather", areas, place)
    ends = [g.ops("Split", one, g.const([2, 2]), outputs=2, axis=-1) for one in (box, boxes)]
    gaps = g.op("Sub", g.op("Min", ends[0][1], ends[1][1]), g.op("Max", ends[0][0], ends[1][0]))
    nearest = g.op("ReduceMin", gaps, g.const([1]), keepdims=0)
    touching = g.op("GreaterOrEqual", nearest, g.const(0.0 if rules.gap_is_apart else -1.0))
    product = g.op("ReduceProd", g.op("Add", gaps, g.const(1.0)), g.const([1]), keepdims=0)
    shared = g.op("Where", touching, product, g.const(0.0))
    overlap = g.op("Div", shared, g.op("Sub", g.op("Add", area, areas), shared))
    over = g.op("And", g.op("Greater", overlap, g.const(float(rules.nms_thresh))), mine)
    here = g.op("And", g.op("Equal", g.const(list(range(most))), place), mine)
    count = g.op("Add", count, g.op("Cast", mine, to=7))
    on = g.op("Less", count, g.op("Constant", value_int=rules.post_nms_topn))
    return [on, g.op("And", alive, g.op("Not", over)), g.op("Or", kept, here), count]
