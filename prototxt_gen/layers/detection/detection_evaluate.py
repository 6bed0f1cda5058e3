"""Layer type DetectionEvaluate (SSD): detections marked as true or false positives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.layers.loss_base import legacy_size
from prototxt_gen.schema.caffe_proto import ResizeParameter
from prototxt_gen.schema.message import Message, boolean, float32, message, string, uint32

if TYPE_CHECKING:
    from torch import nn

    from prototxt_gen.layers.detection._boxes import Floats


class DetectionEvaluateParameter(Message, field="detection_evaluate_param", number=205):
    num_classes = uint32(1)
    background_label_id = uint32(2)
    overlap_threshold = float32(3, 0.5)
    evaluate_difficult_gt = boolean(4, True)
    name_size_file = string(5)
    resize_param = message(6, ResizeParameter)


class DetectionEvaluate(LayerType):
    """Mark each detection as a true or false positive; from that the solver computes the mean average precision.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/detection_evaluate_layer.cpp.
    Shape: detections 1×1×M×7, ground truth 1×1×G×8 → 1×1×(K + M)×5. The first K rows, one for each class except the
        background, are -1, label, number of ground truth boxes, -1, -1. The other rows are image, label, score, true
        positive, false positive. A detection row of label -1 gives no row, so the size is known only after the forward
        pass.
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator. With name_size_file Caffe compares in pixels; that is not
        supported.
    """

    type = "DetectionEvaluate"
    params = (DetectionEvaluateParameter,)
    bottoms = exactly(2)
    sized_by_data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(DetectionEvaluateParameter)
        if not p.has("num_classes") or p.overlap_threshold <= 0:
            raise layer.error("it needs num_classes, and an overlap_threshold greater than 0")
        for bottom, size in zip(bottoms, (7, 8), strict=True):
            if [legacy_size(layer, bottom, axis) for axis in (0, 1, 3)] != [1, 1, size]:
                raise layer.error(f"its bottom {show(bottom)} is not 1×1×…×{size}")
        return [(1, 1, p.num_classes - 1 + legacy_size(layer, bottoms[0], 2), 5)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import Tensor, nn

        p = layer.get(DetectionEvaluateParameter)
        if p.name_size_file:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): name_size_file is not supported; without it, boxes are relative "
                "to the image"
            )

        class DetectionEvaluate(nn.Module):
            @torch.no_grad()
            def forward(self, detections: Tensor, truth: Tensor) -> Tensor:
                rows = evaluate(layer, p, *(bottom.cpu().float().numpy() for bottom in (detections, truth)))
                return torch.from_numpy(rows).to(detections.device)[None, None]

        return DetectionEvaluate()

    examples = (
        Example(
            "plain",
            ((1, 1, 6, 7), (1, 1, 4, 8)),
            "detection_evaluate_param { num_classes: 3 }",
            draws=(
                literal(
                    [
                        [0, 1, 0.6, 0.1, 0.1, 0.5, 0.5],
                        [0, 1, 0.9, 0.1, 0.1, 0.5, 0.6],
                        [0, 2, 0.5, 0.6, 0.6, 0.9, 0.9],
                        [1, 1, 0.8, 0.2, 0.2, 0.4, 0.4],
                        [1, 2, 0.3, 0.0, 0.0, 0.3, 0.3],
                        [2, 2, 0.7, 0.0, 0.0, 0.3, 0.3],
                    ]
                ),
                literal(
                    [
                        [0, 1, 0, 0.1, 0.1, 0.5, 0.6, 0],
                        [0, 1, 1, 0.7, 0.1, 0.9, 0.6, 0],
                        [1, 2, 0, 0.0, 0.0, 0.3, 0.4, 1],
                        [1, 2, 1, 0.5, 0.0, 0.9, 0.4, 0],
                    ]
                ),
            ),
            gradients=False,
        ),
        Example(
            "without the difficult",
            ((1, 1, 2, 7), (1, 1, 2, 8)),
            "detection_evaluate_param { num_classes: 2 evaluate_difficult_gt: false overlap_threshold: 0.3 }",
            draws=(
                literal([[0, 1, 0.6, 0.1, 0.1, 0.5, 0.5], [0, 1, 0.7, 0.6, 0.1, 0.9, 0.5]]),
                literal([[0, 1, 0, 0.1, 0.1, 0.5, 0.6, 1], [0, 1, 1, 0.6, 0.1, 0.9, 0.6, 0]]),
            ),
            gradients=False,
        ),
    )


def evaluate(layer: Layer, p: DetectionEvaluateParameter, detections: Floats, truth: Floats) -> Floats:
    """Return the rows of the top, in NumPy. Raises NetError if the background label occurs."""
    import numpy as np

    detections, truth = detections.reshape(-1, 7), truth.reshape(-1, 8)
    ends = np.flatnonzero(truth[:, 0].astype(int) == -1)
    truth = truth[: ends[0]] if len(ends) else truth
    detections = detections[(detections[:, 0].astype(int) != -1) & (detections[:, 1].astype(int) != -1)]
    for rows, what in ((detections, "detections"), (truth, "ground truth")):
        if (rows[:, 1].astype(int) == p.background_label_id).any():
            raise layer.error(f"label {p.background_label_id}, the background, is among its {what}")
    labels = [label for label in range(p.num_classes) if label != p.background_label_id]
    counted = truth if p.evaluate_difficult_gt else truth[truth[:, 7] == 0]
    heads = [[-1, label, (counted[:, 1].astype(int) == label).sum(), -1, -1] for label in labels]
    return np.concatenate([np.array(heads, dtype="float32").reshape(-1, 5), *_marked(p, detections, truth)])


def _marked(p: DetectionEvaluateParameter, detections: Floats, truth: Floats) -> Iterator[Floats]:
    """Yield the marked detections of each image and label, in that order."""
    import numpy as np

    for image, label in sorted({(int(row[0]), int(row[1])) for row in detections}):
        rows, boxes = (r[(r[:, 0].astype(int) == image) & (r[:, 1].astype(int) == label)] for r in (detections, truth))
        if len(boxes):
            rows = rows[np.argsort(-rows[:, 2], kind="stable")]
        marks = list(_marks(p, rows[:, 3:7], boxes))
        yield np.column_stack([rows[:, :3], np.array(marks, dtype="float32").reshape(-1, 2)])


def _marks(p: DetectionEvaluateParameter, detections: Floats, truth: Floats) -> Iterator[tuple[int, int]]:
    """Yield (true positive, false positive) of each detection, best first.

    Both are 0 if the detection hit a difficult box and these are not evaluated.
    """
    import numpy as np

    from prototxt_gen.layers.detection._boxes import overlaps

    taken: set[int] = set()
    for box in detections:
        table = overlaps(box, truth[:, 3:7])
        best = int(table.argmax()) if len(truth) else -1
        if best < 0 or table[best] < np.float32(p.overlap_threshold):
            yield (0, 1)
        elif not p.evaluate_difficult_gt and truth[best, 7] != 0:
            yield (0, 0)
        else:
            yield (0, 1) if best in taken else (1, 0)
            taken.add(best)
