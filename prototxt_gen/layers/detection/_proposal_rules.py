"""Settings of region proposal layers, including those in which the C++ layer and the Python layer differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prototxt_gen.layers.detection._boxes import Floats


@dataclass(frozen=True)
class ProposalRules:
    """Settings of a region proposal layer. The C++ layer and the Python layer of Faster R-CNN have different ones.

    `anchors` are A boxes x1, y1, x2, y2. `scale_columns` are the columns of the image info that hold the scales of
    width and height. A box that is too small gets score 0, or is removed if `drops_small`. Two boxes do not overlap if
    the gap between them is more than one pixel, or with `gap_is_apart` if there is any gap.
    """

    anchors: tuple[tuple[float, ...], ...]
    feat_stride: int
    min_size: float
    pre_nms_topn: int
    post_nms_topn: int
    nms_thresh: float
    scale_columns: tuple[int, int] = (3, 2)
    drops_small: bool = False
    gap_is_apart: bool = True


def shifted_anchors(rules: ProposalRules, height: int, width: int) -> Floats:
    """Return the anchors at all positions of a height×width feature map, P×4; those of one position are consecutive."""
    import numpy as np

    y, x = np.indices((height, width), dtype="float32") * np.float32(rules.feat_stride)
    anchors: Floats = np.stack([x, y, x, y], -1)[:, :, None] + np.asarray(rules.anchors, "float32")
    return anchors.reshape(-1, 4)


def as_tuples(boxes: Floats) -> tuple[tuple[float, ...], ...]:
    """Return A×4 numbers as tuples."""
    return tuple(tuple(box) for box in boxes.tolist())
