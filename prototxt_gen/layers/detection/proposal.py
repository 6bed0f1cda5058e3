"""Layer type Proposal (PVANet, Faster R-CNN in C++): the regions of a region proposal network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly, show_all
from prototxt_gen.layers.detection._proposal_rules import ProposalRules, as_tuples, shifted_anchors
from prototxt_gen.layers.example import Example, literal, normal, probabilities
from prototxt_gen.schema.message import Message, enum, float32, repeated, uint32

if TYPE_CHECKING:
    from torch import nn

    from prototxt_gen.layers.detection._boxes import Floats
    from prototxt_gen.layers.onnx_graph import OnnxGraph


ANCHOR_RULES = ("scale", "scale-over-base")
"""What the sides of an anchor are multiplied by, besides the ratio: scale, or scale/base_size."""


class ProposalParameter(Message, field="proposal_param", number=219):
    """The parameters of PVANet's C++ layer, with the number of happynear/caffe-windows; it differs in other forks."""

    feat_stride = uint32(1, 16)
    base_size = uint32(2, 16)
    min_size = uint32(3, 16)
    ratio = repeated(float32(4))
    scale = repeated(float32(5))
    pre_nms_topn = uint32(6, 6000)
    post_nms_topn = uint32(7, 300)
    nms_thresh = float32(8, 0.7)
    anchor_rule = enum(1001, "SCALE_OVER_BASE", "SCALE")
    """Field of this project, set when a net is read: how the anchors are scaled."""


def anchors(p: ProposalParameter, rule: str = "") -> tuple[tuple[float, ...], ...]:
    """Return the boxes x1, y1, x2, y2 around the first position, one for each ratio and scale.

    `rule` replaces the layer's anchor_rule. Source: proposal_layer.cpp generate_anchors in happynear/caffe-windows
    (SCALE_OVER_BASE) and in openvinotoolkit/training_toolbox_caffe and oylz/caffe-pvanet-shufflenet (SCALE).
    """
    import numpy as np

    if (rule or p.anchor_rule) == "SCALE":
        return _anchors_by_scale(p)

    center = np.float32(0.5) * np.float32(p.base_size - 1)
    out = []
    for ratio in np.array(p.ratio, dtype="float32"):
        width = np.sqrt(np.float32(p.base_size * p.base_size) / ratio)
        for scale in np.array(p.scale, dtype="float32"):
            sides = [float(side * scale) / p.base_size - 1 + 0.5 for side in (width, width * ratio)]
            half = np.float32(0.5) * np.array([math.trunc(side) for side in sides], dtype="float32")
            out.append(np.concatenate([center - half, center + half]))
    return as_tuples(np.stack(out))


def _anchors_by_scale(p: ProposalParameter) -> tuple[tuple[float, ...], ...]:
    """Return anchors whose sides are those of the ratio, rounded to whole numbers, times scale."""
    import numpy as np

    half_up = np.float32(0.5)
    center = half_up * np.float32(p.base_size - 1)
    out = []
    for ratio in np.array(p.ratio, dtype="float32"):
        width = np.trunc(np.sqrt(np.float32(p.base_size * p.base_size) / ratio) + half_up)
        sides = np.array([width, np.trunc(width * ratio + half_up)], dtype="float32")
        for scale in np.array(p.scale, dtype="float32"):
            half = half_up * (sides * scale - np.float32(1))
            out.append(np.concatenate([center - half, center + half]))
    return as_tuples(np.stack(out))


def rules_of(p: ProposalParameter, image: Shape) -> ProposalRules:
    """Return the settings of the C++ layer for image info of this shape, which has two scales or one for both sides."""
    columns = (3, 2) if _numbers_per_image(image) > 3 else (2, 2)
    return ProposalRules(anchors(p), p.feat_stride, p.min_size, p.pre_nms_topn, p.post_nms_topn, p.nms_thresh, columns)


def _numbers_per_image(image: Shape) -> int:
    return math.prod(image[1:] if len(image) > 1 else image)


class Proposal(LayerType):
    """Propose regions from the outputs of a region proposal network: move anchors, clip, sort, suppress overlaps.

    Source: happynear/caffe-windows src/caffe/layers/proposal_layer.cpp, util/nms.cpp; the same functions in
        openvinotoolkit/training_toolbox_caffe, and OpenCV's modules/dnn/src/layers/proposal_layer.cpp. The forks differ
        in their anchors: `anchor_rule`.
    Shape: scores N×2A×H×W (only the last A are used), box deltas N×4A×H×W, image info (height, width and one scale for
        both, as in OpenVINO, or two) → regions R×5, rows of image, x1, y1, x2, y2; their R scores. R is known only
        after the forward pass; the declared shape has the maximum, N·post_nms_topn.
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator. Equal scores keep the order of positions and anchors; Caffe's order
        depends on its sort. Widths include the last pixel, so the overlap is not that of ONNX's NonMaxSuppression; the
        ONNX form has its own loop, for the declared number of images.
    """

    type = "Proposal"
    params = (ProposalParameter,)
    bottoms = exactly(3)
    tops = Arity(1, 2)
    sized_by_data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(ProposalParameter)
        if not p.ratio or not p.scale or p.base_size < 1:
            raise layer.error("it needs at least one ratio, at least one scale, and a base_size of at least 1")
        count = len(p.ratio) * len(p.scale)
        score, delta, image = bottoms
        delta_shape = (score[0], 4 * count, *score[2:]) if len(score) == 4 else None
        if delta != delta_shape or score[1] != 2 * count or _numbers_per_image(image) < 3:
            raise layer.error(
                f"its bottoms are {show_all(bottoms)}; with {count} anchors it needs N×{2 * count}×H×W, "
                f"N×{4 * count}×H×W and the image's height, width and one or two scales"
            )
        max_regions = score[0] * p.post_nms_topn
        return [(max_regions, 5), (max_regions,)][: len(layer.tops)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        return proposal_module(rules_of(layer.get(ProposalParameter), bottoms[2]), len(layer.tops) == 2)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, Floats]
    ) -> str | Sequence[str]:
        from prototxt_gen.layers.detection._proposal_onnx import write_proposal

        rules = rules_of(layer.get(ProposalParameter), g.shape(bottoms[2]))
        return write_proposal(g, rules, bottoms)[: len(layer.tops)]

    examples = (
        Example(
            "one anchor",
            ((1, 2, 4, 5), (1, 4, 4, 5), (1, 4)),
            "proposal_param { base_size: 16 feat_stride: 16 min_size: 6 ratio: 1 scale: 12 nms_thresh: 0.4 "
            "pre_nms_topn: 20 post_nms_topn: 9 }",
            2,
            draws=(probabilities, normal, literal([64, 80, 1, 1])),
            gradients=False,
        ),
        Example(
            "anchors of many forms, two images",
            ((2, 12, 3, 3), (2, 24, 3, 3), (2, 4)),
            "proposal_param { base_size: 8 feat_stride: 8 min_size: 3 ratio: 0.5 ratio: 1 ratio: 2 scale: 6.5 "
            "scale: 12 nms_thresh: 0.6 pre_nms_topn: 20 post_nms_topn: 8 }",
            draws=(probabilities, normal, literal([24, 24, 1, 1] * 2)),
            gradients=False,
        ),
    )


def proposal_module(rules: ProposalRules, with_scores: bool, scores: tuple[int, ...] = (-1,)) -> nn.Module:
    """Return a module that computes regions, and with `with_scores` their scores in shape `scores`.

    Its inputs are scores, box deltas and image info.
    """
    import torch
    from torch import Tensor, nn

    class Proposal(nn.Module):
        @torch.no_grad()
        def forward(self, score: Tensor, delta: Tensor, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            rows = propose(rules, *(bottom.cpu().float().numpy() for bottom in (score, delta, image)))
            out = torch.from_numpy(rows).to(score.device)
            return (out[:, :5].clone(), out[:, 5].reshape(scores).clone()) if with_scores else out[:, :5].clone()

    return Proposal()


def propose(rules: ProposalRules, score: Floats, delta: Floats, image: Floats) -> Floats:
    """Return rows of image, x1, y1, x2, y2, score, in NumPy. The first row of the image info is used for all images."""
    import numpy as np

    height, width = score.shape[2:]
    count = len(rules.anchors)
    anchors = shifted_anchors(rules, height, width)
    out = [np.zeros((0, 6), dtype="float32")]
    for index in range(len(score)):
        deltas = delta[index].reshape(count, 4, height, width).transpose(2, 3, 0, 1)
        boxes, large = _moved_boxes(rules, anchors, deltas.reshape(-1, 4), image.reshape(-1))
        scores = score[index, count:].transpose(1, 2, 0).reshape(-1) * large.astype("float32")
        if rules.drops_small:
            boxes, scores = boxes[large], scores[large]
        kept = _kept_after_nms(rules, boxes, scores)
        out.append(np.column_stack([np.full(len(kept), index, "float32"), boxes[kept], scores[kept]]))
    return np.concatenate(out)


def _moved_boxes(rules: ProposalRules, anchors: Floats, deltas: Floats, image: Floats) -> tuple[Floats, Floats]:
    """Return the boxes moved by the deltas and clipped, and whether each is large enough. Source: transform_box."""
    import numpy as np

    sizes = anchors[:, 2:] - anchors[:, :2] + 1
    centers = deltas[:, :2] * sizes + (anchors[:, :2] + np.float32(0.5) * sizes)
    with np.errstate(over="ignore"):
        half = np.float32(0.5) * (np.exp(deltas[:, 2:]) * sizes)
    limit = np.tile(image[1::-1] - 1, 2)
    boxes = np.maximum(0, np.minimum(np.concatenate([centers - half, centers + half], 1), limit))
    min_sides = np.float32(rules.min_size) * image[list(rules.scale_columns)]
    return boxes, (boxes[:, 2:] - boxes[:, :2] + 1 >= min_sides).all(1)


def _kept_after_nms(rules: ProposalRules, boxes: Floats, scores: Floats) -> list[int]:
    """Return the indices of the boxes kept by non-maximum suppression, by falling score. Source: nms.cpp nms_cpu."""
    import numpy as np

    order = np.argsort(-scores, kind="stable")[: rules.pre_nms_topn]
    kept: list[int] = []
    alive = np.ones(len(order), dtype=bool)
    for place, index in enumerate(order.tolist()):
        if alive[place]:
            kept.append(index)
            if len(kept) == rules.post_nms_topn:
                break
            alive &= ~(_overlaps(rules, boxes[index], boxes[order]) > np.float32(rules.nms_thresh))
    return kept


def _overlaps(rules: ProposalRules, box: Floats, others: Floats) -> Floats:
    """Return the intersection over union of `box` with each other box; widths include the last pixel.

    Source: nms.cpp iou.
    """
    import numpy as np

    gaps = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    apart = (gaps < (0 if rules.gap_is_apart else -1)).any(1, keepdims=True)
    sides = np.where(apart, np.float32(0), gaps + 1)
    shared = sides[:, 0] * sides[:, 1]
    areas = [np.prod(b[..., 2:] - b[..., :2] + 1, axis=-1) for b in (box, others)]
    return shared / (areas[0] + areas[1] - shared)
