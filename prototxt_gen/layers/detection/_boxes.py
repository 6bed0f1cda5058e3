"""Boxes of the SSD layers in NumPy, float32: coding, overlaps, matching, suppression. A box is xmin, ymin, xmax, ymax.

Source: weiliu89/caffe (branch ssd) src/caffe/util/bbox_util.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = Any
"""An array of float32: NDArray[np.float32], which the checker loses in every second operation."""
Ints = NDArray[np.int64]

ALL = -(2.0**128 - 2.0**104)
"""-FLT_MAX, the threshold that every score passes."""
UNMATCHED, IGNORED = -1, -2


def sizes(boxes: Floats) -> Floats:
    """Return width and height."""
    return boxes[..., 2:] - boxes[..., :2]


def decode(code_type: str, loc: Floats, priors: Floats, variances: Floats | None) -> Floats:
    """Return the boxes that `loc` describes relative to priors; variances None: they are in `loc` already.

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
    """The inverse of `decode`, for boxes and priors of one shape. Source: EncodeBBox."""
    divisor = np.float32(1) if variances is None else variances
    if code_type == "CORNER":
        return (boxes - priors) / divisor
    size = sizes(priors)
    if code_type == "CORNER_SIZE":
        return (boxes - priors) / np.concatenate([size, size], axis=-1) / divisor
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2 - (priors[..., :2] + priors[..., 2:]) / 2
    return np.concatenate([centers / size, np.log(sizes(boxes) / size)], axis=-1) / divisor


def areas(boxes: Floats) -> Floats:
    """Return the areas, 0 for boxes that are inside out. Source: BBoxSize."""
    size = sizes(boxes)
    return np.where((size < 0).any(-1), np.float32(0), size[..., 0] * size[..., 1])


def overlaps(a: Floats, b: Floats) -> Floats:
    """Return the intersections over unions of broadcast boxes. Source: JaccardOverlap."""
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = size[..., 0] * size[..., 1]
    with np.errstate(all="ignore"):
        found = shared / (areas(a) + areas(b) - shared)
    return np.where((size > 0).all(-1), found, np.float32(0))


def by_score(scores: Floats) -> Ints:
    """Return the order of falling scores; equal ones stay in place."""
    return np.argsort(-scores, kind="stable")


def suppress(
    boxes: Floats, scores: Floats, *, threshold: float = ALL, overlap: float, top_k: int = -1, eta: float = 1.0
) -> list[int]:
    """Return the indices of the boxes that non-maximum suppression keeps, by falling score. Source: ApplyNMSFast.

    Only scores above `threshold` and, of those, the `top_k` greatest take part (-1: all). With eta below 1 the allowed
    overlap shrinks with each box kept, while it is above 0.5.
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
    """Return for each of P boxes the index of its ground truth (UNMATCHED, IGNORED: none) and its greatest overlap.

    Each ground truth first gets the free box it overlaps most; then each other box the ground truth it overlaps most,
    if at least by `threshold` (None: not at all). Source: MatchBBox.
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
    left = table.copy()
    for _ in range(table.shape[1]):
        box, truth = np.unravel_index(left.argmax(), left.shape)
        if left[box, truth] < 0:
            break
        indices[box], best[box] = truth, left[box, truth]
        left[box], left[:, truth] = -1, -1


def ground_truth(rows: Floats, *, difficult: bool) -> dict[int, tuple[Ints, Floats]]:
    """Return labels and boxes by image, of rows image, label, instance, box (4), difficult. Source: GetGroundTruth."""
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


def flat(indices: Sequence[int]) -> Ints:
    return np.asarray(indices, dtype="int64")
