"""Boxes of the SSD layers as float32 NumPy arrays: encoding, overlaps, matching, non-maximum suppression.

A box is xmin, ymin, xmax, ymax. Source: weiliu89/caffe (branch ssd) src/caffe/util/bbox_util.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = Any
"""A float32 array. It is not declared as NDArray[np.float32], because NumPy's types lose the float32 in arithmetic."""
Ints = NDArray[np.int64]

LOWEST = -(2.0**128 - 2.0**104)
"""-FLT_MAX, a threshold that every score exceeds."""
UNMATCHED, IGNORED = -1, -2
"""Indices, in place of that of a ground truth box, of priors without a match and of priors outside the image."""


def sizes(boxes: Floats) -> Floats:
    """Return the width and height of each box."""
    return boxes[..., 2:] - boxes[..., :2]


def decode(code_type: str, loc: Floats, priors: Floats, variances: Floats | None) -> Floats:
    """Return the boxes encoded by `loc` relative to the priors. Variances None: `loc` already includes them.

    Shapes: loc …×P×4, priors and variances P×4. Source: DecodeBBox.
    """
    scaled = loc if variances is None else variances * loc
    if code_type == "CORNER":
        return priors + scaled
    size = sizes(priors)
    if code_type == "CORNER_SIZE":
        return priors + scaled * np.concatenate([size, size], axis=-1)
    centers = scaled[..., :2] * size + (priors[..., :2] + priors[..., 2:]) / 2
    with np.errstate(over="ignore"):
        half = np.exp(scaled[..., 2:]) * size / 2
    return np.concatenate([centers - half, centers + half], axis=-1)


def encode(code_type: str, boxes: Floats, priors: Floats, variances: Floats | None) -> Floats:
    """Return the encoding of boxes relative to priors of the same shape: the inverse of `decode`.

    Source: EncodeBBox.
    """
    divisor = np.float32(1) if variances is None else variances
    if code_type == "CORNER":
        return (boxes - priors) / divisor
    size = sizes(priors)
    if code_type == "CORNER_SIZE":
        return (boxes - priors) / np.concatenate([size, size], axis=-1) / divisor
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2 - (priors[..., :2] + priors[..., 2:]) / 2
    return np.concatenate([centers / size, np.log(sizes(boxes) / size)], axis=-1) / divisor


def areas(boxes: Floats) -> Floats:
    """Return the area of each box; 0 if its maximum is less than its minimum on an axis. Source: BBoxSize."""
    size = sizes(boxes)
    return np.where((size < 0).any(-1), np.float32(0), size[..., 0] * size[..., 1])


def overlaps(a: Floats, b: Floats) -> Floats:
    """Return the intersection over union of each pair of broadcast boxes. Source: JaccardOverlap."""
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = size[..., 0] * size[..., 1]
    with np.errstate(all="ignore"):
        ratio = shared / (areas(a) + areas(b) - shared)
    return np.where((size > 0).all(-1), ratio, np.float32(0))


def by_score(scores: Floats) -> Ints:
    """Return the indices that sort by falling score; equal scores keep their order."""
    return np.argsort(-scores, kind="stable")


def kept_after_nms(
    boxes: Floats, scores: Floats, *, threshold: float = LOWEST, overlap: float, top_k: int = -1, eta: float = 1.0
) -> list[int]:
    """Return the indices of the boxes kept by non-maximum suppression, by falling score. Source: ApplyNMSFast.

    Only scores above `threshold` and, of these, the `top_k` greatest are used (-1: all). If eta is less than 1, the
    allowed overlap is multiplied by eta after each kept box, as long as it is above 0.5.
    """
    candidates = np.flatnonzero(scores > np.float32(threshold))
    candidates = candidates[by_score(scores[candidates])]
    if top_k >= 0:
        candidates = candidates[:top_k]
    limit, kept = np.float32(overlap), list[int]()
    for index in candidates.tolist():
        if kept and not (overlaps(boxes[index], boxes[kept]) <= limit).all():
            continue
        kept.append(index)
        if eta < 1 and limit > 0.5:
            limit = np.float32(limit * np.float32(eta))
    return kept


def match(
    truth: Floats, boxes: Floats, *, threshold: float | None, ignore_crossing: bool = False
) -> tuple[Ints, Floats]:
    """Return for each of P boxes the index of its ground truth box and its greatest overlap.

    An index of UNMATCHED or IGNORED means that the box has no ground truth. Each ground truth box first gets the free
    box that it overlaps most. Then each remaining box gets the ground truth box that it overlaps most, if the overlap
    is at least `threshold` (None: none). Source: MatchBBox.
    """
    indices = np.full(len(boxes), UNMATCHED)
    table = overlaps(boxes[:, None], truth[None]) if len(truth) else np.zeros((len(boxes), 0), "float32")
    if ignore_crossing and len(truth):
        indices[((boxes < 0) | (boxes > 1)).any(1)] = IGNORED
    table = np.where((table > 1e-6) & (indices == UNMATCHED)[:, None], table, np.float32(-1))
    best = table.max(1, initial=0.0)
    _match_each_truth(table, indices, best)
    if threshold is not None and len(truth):
        free = (indices == UNMATCHED) & (table.max(1) >= np.float32(threshold)) & (table.max(1) > 0)
        indices[free] = table[free].argmax(1)
    return indices, best


def _match_each_truth(table: Floats, indices: Ints, best: Floats) -> None:
    """Give each ground truth box the free box that it overlaps most; changes `indices` and `best` in place."""
    remaining = table.copy()
    for _ in range(table.shape[1]):
        box, truth = np.unravel_index(remaining.argmax(), remaining.shape)
        if remaining[box, truth] < 0:
            break
        indices[box], best[box] = truth, remaining[box, truth]
        remaining[box], remaining[:, truth] = -1, -1


def ground_truth(rows: Floats, *, difficult: bool) -> dict[int, tuple[Ints, Floats]]:
    """Return labels and boxes by image, given rows of image, label, instance, box (4 numbers), difficult.

    Source: GetGroundTruth.
    """
    rows = rows.reshape(-1, 8)
    rows = rows[rows[:, 0].astype(int) != -1]
    rows = rows if difficult else rows[rows[:, 7] == 0]
    images = rows[:, 0].astype(int)
    return {
        int(image): (rows[images == image, 1].astype("int64"), rows[images == image, 3:7])
        for image in np.unique(images)
    }


def split_priors(blob: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the P×4 boxes and P×4 variances of a 1×2×4P blob. Source: GetPriorBBoxes."""
    two = blob.reshape(2, -1, 4)
    return two[0], two[1]


def as_indices(indices: Sequence[int]) -> Ints:
    """Return the numbers as an int64 array, also if there are none."""
    return np.asarray(indices, dtype="int64")
