"""Layer type Yolov3DetectionOutput: the detections of YOLO v3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity
from prototxt_gen.layers.detection._yolo_detection_output_onnx import YoloSettings
from prototxt_gen.layers.detection._yolo_detections import YoloDetectionsBase, anchor_sizes, random_logits
from prototxt_gen.layers.example import Draw, Example
from prototxt_gen.schema.message import Message, boolean, float32, repeated, uint32

if TYPE_CHECKING:
    from torch import nn


class Yolov3DetectionOutputParameter(Message, field="yolov3_detection_output_param", number=602):
    num_classes = uint32(1, 20)
    num_box = uint32(2, 3)
    confidence_threshold = float32(3, 0.01)
    nms_threshold = float32(4, 0.45)
    biases = repeated(float32(5))
    anchors_scale = repeated(uint32(6))
    mask_group_num = uint32(7, 2)
    mask = repeated(uint32(8))
    gaussian_box = boolean(9)


def _v3(name: str, params: str, *, images: int = 1, draws: Draw = random_logits) -> Example:
    shapes = ((images, 2 * 8, 2, 3), (images, 2 * 8, 4, 6))
    text = (
        "num_classes: 3 num_box: 2 biases: 12 biases: 20 biases: 40 biases: 30 biases: 70 biases: 90 "
        "biases: 33 biases: 80 anchors_scale: 32 anchors_scale: 16 mask: 2 mask: 3 mask: 0 mask: 1"
    )
    return Example(
        name, shapes, f"yolov3_detection_output_param {{ {text} {params} }}", draws=(draws,), gradients=False
    )


class Yolov3DetectionOutput(YoloDetectionsBase):
    """Decode the boxes of YOLO v3, keep every class above the score threshold, and apply non-maximum suppression.

    Source: eric612/MobileNet-YOLO src/caffe/layers/yolov3_detection_output_layer.cpp Forward_cpu, ApplyNms.
    Shape: mask_group_num bottoms N×(num_box·(5 + classes))×H×W, one for each scale → 1×1×M×7: 0, label + 1, score,
        xmin, ymin, xmax, ymax, by falling score. M is known only after the forward pass; the declared shape has M = 1.
        If there is no detection, there is one row (image, -1, -1, -1, -1, -1, -1) for each image.
    Blobs: none.
    Differs: PyTorch has no such module; the ONNX form uses NonMaxSuppression. As in Caffe, boxes of different classes,
        and even of different images, suppress each other, and all images have the number 0: run one image at a time.
        Equal scores keep the order of bottoms, images, cells, anchors, classes; Caffe's order depends on the C++
        library. gaussian_box is refused: Caffe's CPU code reads the objectness from memory that it has not written, and
        its GPU code uses another formula.
    """

    type = "Yolov3DetectionOutput"
    params = (Yolov3DetectionOutputParameter,)
    bottoms = Arity(1)

    def settings(self, layer: Layer) -> YoloSettings:
        p, count = layer.get(Yolov3DetectionOutputParameter), len(layer.bottoms)
        if not p.has("num_classes"):
            raise layer.error("it needs num_classes")
        if p.gaussian_box:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): gaussian_box is not supported: Caffe's CPU and GPU code differ"
            )
        if count != p.mask_group_num:
            raise layer.error(f"it needs mask_group_num bottoms, {p.mask_group_num}, not {count}")
        if len(p.anchors_scale) < count or 0 in p.anchors_scale:
            raise layer.error(f"it needs an anchors_scale of at least 1 for each of its {count} bottoms")
        group = len(p.mask) // count
        masks = [p.mask[group * i : group * i + p.num_box] for i in range(count)]
        if not p.num_box or any(len(mask) != p.num_box for mask in masks):
            raise layer.error(f"its mask has {len(p.mask)} anchors; {count} bottoms need {p.num_box} each")
        anchors = tuple(anchor_sizes(layer, p.biases, mask) for mask in masks)
        return YoloSettings(
            anchors, p.anchors_scale[:count], p.num_classes, p.confidence_threshold, p.nms_threshold, True
        )

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.detection._yolo_modules import Yolov3Detections

        return Yolov3Detections(*self.settings(layer)[:-1])

    examples = (
        _v3("plain", "confidence_threshold: 0.3"),
        _v3("all boxes", "confidence_threshold: -1 nms_threshold: 0.3"),
        _v3("several images", "confidence_threshold: 0.4 nms_threshold: 0.1", images=2),
        _v3("nothing found", "confidence_threshold: 0.999", images=3),
        _v3("nothing suppressed", "confidence_threshold: 0.3 nms_threshold: 1.5"),
    )
