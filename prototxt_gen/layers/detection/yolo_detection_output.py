"""Layer type YoloDetectionOutput: the detections of YOLO v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, show_all
from prototxt_gen.layers.detection._yolo_detection_output_onnx import YoloSettings
from prototxt_gen.layers.detection._yolo_detections import YoloDetectionsBase, anchor_sizes, random_logits
from prototxt_gen.layers.example import Draw, Example, literal
from prototxt_gen.schema.message import Message, float32, repeated, string, uint32

if TYPE_CHECKING:
    from torch import nn


class YoloDetectionOutputParameter(Message, field="yolo_detection_output_param", number=601):
    """`side` and `coords` have no effect in Caffe."""

    side = uint32(1, 13)
    num_classes = uint32(2, 20)
    num_box = uint32(3, 5)
    coords = uint32(4, 4)
    confidence_threshold = float32(5, 0.01)
    nms_threshold = float32(6, 0.45)
    biases = repeated(float32(7))
    label_map_file = string(8)


def _v2(name: str, shapes: tuple[Shape, ...], params: str, draws: Draw = random_logits) -> Example:
    text = f"num_classes: 3 num_box: 2 biases: 1.08 biases: 1.19 biases: 3.42 biases: 4.41 {params}"
    return Example(name, shapes, f"yolo_detection_output_param {{ {text} }}", draws=(draws,), gradients=False)


class YoloDetectionOutput(YoloDetectionsBase):
    """Decode the boxes of YOLO v2, keep each box's best class if its score is high enough, and suppress overlaps.

    Source: eric612/MobileNet-YOLO src/caffe/layers/yolo_detection_output_layer.cpp Forward_cpu, ApplyNms.
    Shape: N×(num_box·(5 + classes))×S×S, optionally a second scale → 1×1×M×7: 0, label + 1, score, xmin, ymin, xmax,
        ymax, by falling score. M is known only after the forward pass; the declared shape has M = 1. If there is no
        detection, there is one row (image, -1, -1, -1, -1, -1, -1) for each image.
    Blobs: none.
    Differs: as Yolov3DetectionOutput. Channels of an anchor after its classes are ignored. Bottoms that are not square
        are refused, because Caffe reads the wrong cells there.
    """

    type = "YoloDetectionOutput"
    params = (YoloDetectionOutputParameter,)
    bottoms = Arity(1, 2)

    def settings(self, layer: Layer) -> YoloSettings:
        p, count = layer.get(YoloDetectionOutputParameter), len(layer.bottoms)
        if not p.has("num_classes") or not p.num_box:
            raise layer.error("it needs num_classes, and a num_box of at least 1")
        anchors = anchor_sizes(layer, p.biases, range(p.num_box))
        scales = (1,) * count
        return YoloSettings((anchors,) * count, scales, p.num_classes, p.confidence_threshold, p.nms_threshold, False)

    def has_valid_channels(self, channels: int, anchors: int, each: int) -> bool:
        return channels % anchors == 0 and channels // anchors >= each

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        tops = super().shapes(layer, bottoms)
        if any(bottom[2] != bottom[3] for bottom in bottoms):
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): its bottoms are {show_all(bottoms)}; they must be square"
            )
        return tops

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.detection._yolo_modules import YoloDetections

        return YoloDetections(*self.settings(layer)[:-1])

    examples = (
        _v2("plain", ((1, 16, 3, 3),), "confidence_threshold: 0.2"),
        _v2("two scales, two images", ((2, 16, 3, 3), (2, 16, 6, 6)), "confidence_threshold: 0.3 nms_threshold: 0.2"),
        _v2("channels left over", ((1, 20, 4, 4),), "confidence_threshold: 0"),
        _v2("nothing found", ((2, 16, 2, 2),), "confidence_threshold: 1"),
        _v2("equal scores", ((1, 16, 2, 2),), "confidence_threshold: 0.1", literal([0.5] * 64)),
    )
