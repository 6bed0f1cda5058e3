"""How a region proposal layer proposes regions: the settings that the C++ layer and the Python layer differ in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prototxt_gen.layers.detection._boxes import Floats


@dataclass(frozen=True)
class Rules:
    """How regions are proposed: what the C++ layer and the Python layer of Faster R-CNN do each in its own way.

    `anchors` are A boxes x1, y1, x2, y2. `scales_at`: where in the image's row the scales of width and height stand. A
    box that is too small is scored 0, or left out if `drops_small`. Boxes that lie apart share nothing: if
    `gap_is_apart`, also those that are less than a pixel apart.
    """

    anchors: tuple[tuple[float, ...], ...]
    feat_stride: int
    min_size: float
    pre_nms_topn: int
    post_nms_topn: int
    nms_thresh: float
    scales_at: tuple[int, int] = (3, 2)
    drops_small: bool = False
    gap_is_apart: bool = True


def positions(rules: Rules, height: int, width: int) -> Floats:
    """Return the anchors at all positions, the anchors of a position together, P×4."""
    import numpy as np

    y, x = np.indices((height, width), dtype="float32") * np.float32(rules.feat_stride)
    made: Floats = np.stack([x, y, x, y], -1)[:, :, None] + np.asarray(rules.anchors, "float32")
    return made.reshape(-1, 4)


def plain(boxes: Floats) -> tuple[tuple[float, ...], ...]:
    """Return A×4 numbers as tuples."""
    return tuple(tuple(box) for box in boxes.tolist())
