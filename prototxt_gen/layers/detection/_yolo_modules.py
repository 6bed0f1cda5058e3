"""PyTorch modules of the detections of YOLO v2 and v3: one non-maximum suppression over all scales and images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def kept_after_nms(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    """Return the indices of the boxes (centre and size) that non-maximum suppression keeps, by falling score.

    A box is dropped if it overlaps a kept box with a better score by at least `threshold`. Source:
    eric612/MobileNet-YOLO src/caffe/layers/yolov3_detection_output_layer.cpp ApplyNms, box_iou.
    """
    low, high, areas = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2] * boxes[:, 3]
    kept: list[int] = []
    for place in scores.argsort(descending=True, stable=True).tolist():
        sides = torch.minimum(high[kept], high[place]) - torch.maximum(low[kept], low[place])
        shared = torch.where((sides < 0).any(1), 0.0, sides[:, 0] * sides[:, 1])
        if not (shared / (areas[kept] + areas[place] - shared) >= threshold).any():
            kept.append(place)
    return kept


def detection_rows(boxes: Tensor, labels: Tensor, scores: Tensor, threshold: float, images: int) -> Tensor:
    """Return the 1×1×M×7 top for candidates in Caffe's order.

    If no candidate is kept, it has one row (image, -1, -1, -1, -1, -1, -1) for each image.
    """
    kept = kept_after_nms(boxes, scores, threshold)
    if not kept:
        none = boxes.new_full((images, 7), -1.0)
        none[:, 0] = torch.arange(images)
        return none[None, None]
    boxes, half = boxes[kept], boxes[kept, 2:] / 2
    corners = [boxes[:, :2] - half, boxes[:, :2] + half]
    firsts = [boxes.new_zeros(len(kept), 1), labels[kept, None] + 1, scores[kept, None]]
    return torch.cat([*firsts, *corners], 1)[None, None]


class YoloModule(nn.Module):
    """Base class of the two modules.

    `anchors` holds the anchor sizes of each bottom, `scales` the size of a cell in their unit.
    """

    def __init__(
        self,
        anchors: Sequence[Sequence[tuple[float, float]]],
        scales: Sequence[int],
        classes: int,
        confidence_threshold: float,
        nms_threshold: float,
    ) -> None:
        super().__init__()
        self.anchors, self.scales, self.classes = anchors, scales, classes
        self.confidence_threshold, self.nms_threshold = confidence_threshold, nms_threshold

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> Tensor:
        each = zip(bottoms, self.anchors, self.scales, strict=True)
        parts = [self.decoded(x.float(), anchors, scale) for x, anchors, scale in each]
        boxes, objects, classes = (torch.cat(part) for part in zip(*parts, strict=True))
        return detection_rows(*self.candidates(boxes, objects, classes), self.nms_threshold, len(bottoms[0]))

    def decoded(self, x: Tensor, anchors: Sequence[tuple[float, float]], scale: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (centre and size), objectness logits and class logits, ordered by image, cell and anchor."""
        batch, _, high, wide = x.shape
        cells = x.reshape(batch, len(anchors), -1, high * wide).permute(0, 3, 1, 2)
        rows, columns = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
        corner = torch.stack([columns, rows], -1).reshape(-1, 1, 2).to(x)
        size = torch.tensor([wide, high]).to(x)
        center = (cells[..., :2].sigmoid() + corner) / size
        sides = cells[..., 2:4].exp() * torch.tensor(anchors).to(x) / (size * scale)
        boxes = torch.cat([center, sides], -1)
        return (
            boxes.reshape(-1, 4),
            cells[..., 4].reshape(-1),
            cells[..., 5 : 5 + self.classes].reshape(-1, self.classes),
        )

    def candidates(self, boxes: Tensor, objects: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, labels and scores of the detections before non-maximum suppression."""
        raise NotImplementedError


class Yolov3Detections(YoloModule):
    """Each class of a box with a score above the threshold is a detection."""

    def candidates(self, boxes: Tensor, objects: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # in float64, as half of this is in Caffe, so that all runtimes sort nearly equal scores alike
        scores = (classes.double().sigmoid() * objects.double().sigmoid()[:, None]).to(boxes)
        which, labels = (scores > self.confidence_threshold).nonzero(as_tuple=True)
        return boxes[which], labels.to(boxes), scores[which, labels]


class YoloDetections(YoloModule):
    """The best class of each box is a detection if its score is at least the threshold."""

    def candidates(self, boxes: Tensor, objects: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best, labels = classes.double().softmax(-1).max(-1)
        scores = (objects.double().sigmoid() * best).to(boxes)
        which = scores >= self.confidence_threshold
        return boxes[which], labels[which].to(boxes), scores[which]
