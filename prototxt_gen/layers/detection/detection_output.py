"""Layer type DetectionOutput (SSD): detections from locations, scores and prior boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, show_all
from prototxt_gen.layers.detection._detection_output_onnx import write_detection_output
from prototxt_gen.layers.detection._ssd_parameters import DetectionOutputParameter
from prototxt_gen.layers.example import Draw, Example, literal, normal, probabilities
from prototxt_gen.layers.loss_base import legacy_size

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.detection._boxes import Floats
    from prototxt_gen.layers.onnx_graph import OnnxGraph


def top_k(p: DetectionOutputParameter) -> int:
    """Return how many boxes of each class enter non-maximum suppression; -1 means all."""
    return p.nms_param.top_k if p.nms_param.has("top_k") and p.nms_param.top_k >= 0 else -1


def score_threshold(p: DetectionOutputParameter) -> float:
    """Return the score that a detection must exceed; -FLT_MAX if there is no threshold."""
    return p.confidence_threshold if p.has("confidence_threshold") else -3.4028234663852886e38


def check_priors(layer: Layer, bottoms: Sequence[Shape], classes: int, share_location: bool) -> None:
    """Raise NetError if the sizes of the loc, conf and prior bottoms do not fit each other.

    MultiBoxLoss uses the same check.
    """
    loc, conf, prior = bottoms[:3]
    if legacy_size(layer, loc, 0) != legacy_size(layer, conf, 0):
        raise layer.error(f"bottoms differ, {show_all((loc, conf))}; it needs equal batch sizes")
    count = legacy_size(layer, prior, 2) // 4
    for shape, each, what in ((loc, 4 if share_location else 4 * classes, "locations"), (conf, classes, "scores")):
        if legacy_size(layer, shape, 1) != count * each:
            raise layer.error(
                f"its bottoms are {show_all(bottoms)}; with {count} priors and {classes} classes it needs "
                f"{count * each} {what} for each image"
            )


def random_priors(count: int) -> Draw:
    """Return a function that draws priors that overlap each other, with SSD's variances."""

    def draw(rng: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
        import numpy as np

        corner = rng.uniform(0, 0.6, (count, 2))
        both = np.concatenate([corner, corner + rng.uniform(0.2, 0.5, (count, 2))], 1)
        return np.stack([both, np.broadcast_to([0.1, 0.1, 0.2, 0.2], both.shape)]).reshape(shape)

    return draw


def _example(
    name: str,
    params: str,
    *,
    images: int = 1,
    classes: int = 3,
    boxes_per_class: bool = False,
    scores: Draw = probabilities,
) -> Example:
    count = 12
    shapes = ((images, count * 4 * (classes if boxes_per_class else 1)), (images, count * classes), (1, 2, count * 4))
    text = f"detection_output_param {{ num_classes: {classes} {params} }}"
    return Example(name, shapes, text, draws=(normal, scores, random_priors(count)), gradients=False)


class DetectionOutput(LayerType):
    """Decode locations relative to prior boxes, suppress overlaps in each class, and keep the best boxes of each image.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/detection_output_layer.cpp, util/bbox_util.cpp.
    Shape: locations N×4P (4PC if share_location is false), scores N×PC, priors 1×2×4P → 1×1×M×7: image, label, score,
        xmin, ymin, xmax, ymax, sorted by image, label and falling score. M is known only after the forward pass; the
        declared shape has M = 1. If there is no detection at all, there is one row (image, -1, -1, -1, -1, -1, -1) for
        each image.
    Blobs: none.
    Differs: PyTorch has no such module; the ONNX form consists of TopK and NonMaxSuppression. Equal scores keep the
        order of labels and priors; if keep_top_k drops some of them, Caffe's choice depends on the C++ library. No
        files are written. Without nms_param, boxes that overlap by 0.3 are suppressed, as in SSD; brocolli-caffe 9.0.2
        suppresses none.
    """

    type = "DetectionOutput"
    params = (DetectionOutputParameter,)
    bottoms = Arity(3, 4)
    sized_by_data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(DetectionOutputParameter)
        if p.clip or not p.normalized_bbox:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): clip: true and normalized_bbox: false, which OpenCV has, change "
                "its result and are not supported"
            )
        if not p.has("num_classes"):
            raise layer.error("it needs num_classes")
        if p.nms_param.nms_threshold < 0 or not 0 < p.nms_param.eta <= 1:
            raise layer.error("nms_threshold must be at least 0, and eta greater than 0 and at most 1")
        if p.share_location and p.background_label_id == -1:
            raise layer.error("background_label_id -1 needs share_location: false; otherwise Caffe stops with an error")
        check_priors(layer, bottoms, p.num_classes, p.share_location)
        return [(1, 1, 1, 7)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import Tensor, nn

        class DetectionOutput(nn.Module):
            @torch.no_grad()
            def forward(self, loc: Tensor, conf: Tensor, prior: Tensor, image: Tensor | None = None) -> Tensor:
                rows = detect(layer, *(bottom.cpu().float().numpy() for bottom in (loc, conf, prior)))
                return torch.from_numpy(rows).to(loc.device)[None, None]

        return DetectionOutput()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p = layer.get(DetectionOutputParameter)
        if p.nms_param.eta < 1 and p.nms_param.nms_threshold > 0.5:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): ONNX's NonMaxSuppression has no eta; set eta to 1, "
                f"or nms_threshold to at most 0.5, so that eta has no effect"
            )
        priors = g.shape(bottoms[2])[2] // 4
        return write_detection_output(g, p, bottoms[:3], priors, top_k(p), score_threshold(p))

    examples = (
        _example(
            "as SSD has it",
            "nms_param { nms_threshold: 0.45 top_k: 8 } code_type: CENTER_SIZE keep_top_k: 6 confidence_threshold: 0.3",
            images=2,
        ),
        _example("everything", "nms_param { nms_threshold: 0.3 } code_type: CENTER_SIZE"),
        _example("corners", "nms_param { nms_threshold: 0.2 } code_type: CORNER confidence_threshold: 0.2", images=2),
        _example("corners in units of size", "nms_param { nms_threshold: 0.2 } code_type: CORNER_SIZE keep_top_k: 5"),
        _example(
            "boxes of each class",
            "nms_param { nms_threshold: 0.4 top_k: 5 } code_type: CENTER_SIZE share_location: false keep_top_k: 7",
            images=2,
            boxes_per_class=True,
        ),
        _example(
            "no background",
            "nms_param { nms_threshold: 0.4 } share_location: false background_label_id: -1 "
            "code_type: CENTER_SIZE confidence_threshold: 0.5",
            boxes_per_class=True,
        ),
        _example(
            "background last, variance in target",
            "nms_param { nms_threshold: 0.4 } background_label_id: 2 "
            "variance_encoded_in_target: true code_type: CENTER_SIZE",
            images=2,
        ),
        _example("corners, variance in target", "nms_param { nms_threshold: 0.4 } variance_encoded_in_target: true"),
        _example("nothing found", "nms_param { nms_threshold: 0.4 } confidence_threshold: 0.99", images=3),
        _example(
            "nothing in one image",
            "nms_param { nms_threshold: 0.4 } code_type: CENTER_SIZE confidence_threshold: 0.5",
            images=2,
            classes=2,
            scores=literal([0.1] * 24 + [0.9, 0.8, 0.4, 0.6] * 6),
        ),
        _example(
            "equal scores",
            "nms_param { nms_threshold: 0.4 top_k: 3 } code_type: CENTER_SIZE",
            classes=2,
            scores=literal([0.5] * 24),
        ),
    )


def detect(layer: Layer, loc: Floats, conf: Floats, prior: Floats) -> Floats:
    """Return the rows of the top, M×7, in NumPy. Raises NetError if a prior has no width or height."""
    import numpy as np

    from prototxt_gen.layers.detection import _boxes

    p = layer.get(DetectionOutputParameter)
    priors, variances = _boxes.split_priors(prior)
    if p.code_type != "CORNER" and (_boxes.sizes(priors) <= 0).any():
        raise layer.error("a prior has no width or no height")
    shape = (len(loc), len(priors), 1 if p.share_location else p.num_classes, 4)
    per_class = loc.reshape(shape).swapaxes(1, 2)
    decoded = _boxes.decode(p.code_type, per_class, priors, None if p.variance_encoded_in_target else variances)
    scores = conf.reshape(len(loc), len(priors), p.num_classes).swapaxes(1, 2)
    images = [_detect_one(p, decoded[i], scores[i]) for i in range(len(loc))]
    rows = np.concatenate([np.insert(rows, 0, i, axis=1) for i, rows in enumerate(images)])
    if len(rows):
        return rows
    no_detections = np.full((len(loc), 7), -1, dtype="float32")
    no_detections[:, 0] = np.arange(len(loc))
    return no_detections


def _detect_one(p: DetectionOutputParameter, decoded: Floats, scores: Floats) -> Floats:
    """Return the detections of one image, M×6, given boxes (1 or C)×P×4 and scores C×P."""
    import numpy as np

    from prototxt_gen.layers.detection import _boxes

    detections = [np.zeros((0, 6), dtype="float32")]
    for label in range(p.num_classes):
        if label == p.background_label_id:
            continue
        boxes, nms = decoded[0 if p.share_location else label], p.nms_param
        kept = _boxes.kept_after_nms(
            boxes, scores[label], threshold=score_threshold(p), overlap=nms.nms_threshold, top_k=top_k(p), eta=nms.eta
        )
        labels = np.full(len(kept), label, dtype="float32")
        index = _boxes.as_indices(kept)
        detections.append(np.column_stack([labels, scores[label][index], boxes[index]]))
    rows = np.concatenate(detections)
    if 0 <= p.keep_top_k < len(rows):
        rows = rows[np.sort(_boxes.by_score(rows[:, 1])[: p.keep_top_k])]
    return rows
