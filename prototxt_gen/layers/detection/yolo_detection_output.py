"""YoloDetectionOutput and Yolov3DetectionOutput: the detections of YOLO v2 and v3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, LayerType, show_all
from prototxt_gen.layers.detection._yolo_detection_output_onnx import Found, lower
from prototxt_gen.layers.example import Draw, Example, literal, normal
from prototxt_gen.schema.message import Message, boolean, float32, repeated, string, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class YoloDetectionOutputParameter(Message, field="yolo_detection_output_param", number=601):
    """`side` and `coords` are read and not used there."""

    side = uint32(1, 13)
    num_classes = uint32(2, 20)
    num_box = uint32(3, 5)
    coords = uint32(4, 4)
    confidence_threshold = float32(5, 0.01)
    nms_threshold = float32(6, 0.45)
    biases = repeated(float32(7))
    label_map_file = string(8)


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


def anchor_pairs(layer: Layer, biases: Sequence[float], wanted: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """Return the sizes of the anchors of these indices."""
    if 2 * max(wanted, default=0) + 1 >= len(biases):
        raise layer.error(f"it has {len(biases)} biases; it needs width and height of anchor {max(wanted, default=0)}")
    return tuple((biases[2 * i], biases[2 * i + 1]) for i in wanted)


class Detections(LayerType):
    """What both share: the bottoms' checks and the two forms."""

    sized_by_data = True

    def found(self, layer: Layer) -> Found:
        raise NotImplementedError

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        found = self.found(layer)
        if any(len(bottom) != 4 or bottom[0] != bottoms[0][0] for bottom in bottoms):
            raise layer.error(f"its bottoms are {show_all(bottoms)}; it needs N×C×H×W of one batch size")
        for bottom, anchors in zip(bottoms, found.anchors, strict=True):
            if not self.fits(bottom[1], len(anchors), 5 + found.classes):
                raise layer.error(
                    f"its bottom {show(bottom)} needs {len(anchors)}·(5 + num_classes) channels, "
                    f"{len(anchors) * (5 + found.classes)}"
                )
        return [(1, 1, 1, 7)]

    def fits(self, channels: int, anchors: int, each: int) -> bool:
        return channels == anchors * each

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        found = self.found(layer)
        if not found.threshold > 0:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): with nms_threshold {found.threshold:g} Caffe keeps the best box "
                "alone; ONNX's NonMaxSuppression cannot"
            )
        return lower(g, found, bottoms)


def _logits(rng: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
    return normal(rng, shape) * 1.5


def _v3(name: str, params: str, *, images: int = 1, draws: Draw = _logits) -> Example:
    shapes = ((images, 2 * 8, 2, 3), (images, 2 * 8, 4, 6))
    text = (
        "num_classes: 3 num_box: 2 biases: 12 biases: 20 biases: 40 biases: 30 biases: 70 biases: 90 "
        "biases: 33 biases: 80 anchors_scale: 32 anchors_scale: 16 mask: 2 mask: 3 mask: 0 mask: 1"
    )
    return Example(
        name, shapes, f"yolov3_detection_output_param {{ {text} {params} }}", draws=(draws,), gradients=False
    )


class Yolov3DetectionOutput(Detections):
    """The detections of YOLO v3: every class of every box above the threshold, the best of those that overlap.

    Source: eric612/MobileNet-YOLO src/caffe/layers/yolov3_detection_output_layer.cpp Forward_cpu, ApplyNms.
    Shape: one bottom N×(num_box·(5 + classes))×H×W for each of mask_group_num scales → 1×1×M×7: 0, label + 1, score,
        xmin, ymin, xmax, ymax, by falling score. M is known only after the run; a declared shape has 1. With no
        detection there is a row image, -1, -1, -1, -1, -1, -1 for each image.
    Blobs: none.
    Differs: PyTorch has none; the ONNX form is built of NonMaxSuppression. As there, boxes suppress each other across
        classes, and across images, all of which are called image 0: run one image at a time. Equal scores stay in the
        order of bottoms, images, cells, anchors, classes; Caffe leaves it to the C++ library. gaussian_box is refused:
        on the CPU Caffe takes the objectness from memory that it does not write, on the GPU by another formula.
    """

    type = "Yolov3DetectionOutput"
    params = (Yolov3DetectionOutputParameter,)
    bottoms = Arity(1)

    def found(self, layer: Layer) -> Found:
        p, count = layer.get(Yolov3DetectionOutputParameter), len(layer.bottoms)
        if not p.has("num_classes"):
            raise layer.error("it needs num_classes")
        if p.gaussian_box:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): gaussian_box is another thing on Caffe's CPU and GPU"
            )
        if count != p.mask_group_num:
            raise layer.error(f"it takes as many bottoms as mask_group_num says, {p.mask_group_num}, not {count}")
        if len(p.anchors_scale) < count or 0 in p.anchors_scale:
            raise layer.error(f"it needs an anchors_scale of at least 1 for each of its {count} bottoms")
        group = len(p.mask) // count
        masks = [p.mask[group * i : group * i + p.num_box] for i in range(count)]
        if not p.num_box or any(len(mask) != p.num_box for mask in masks):
            raise layer.error(f"its mask has {len(p.mask)} anchors; {count} bottoms need {p.num_box} each")
        anchors = tuple(anchor_pairs(layer, p.biases, mask) for mask in masks)
        return Found(anchors, p.anchors_scale[:count], p.num_classes, p.confidence_threshold, p.nms_threshold, True)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.detection._yolo_modules import Yolov3Detections

        return Yolov3Detections(*self.found(layer)[:-1])

    examples = (
        _v3("plain", "confidence_threshold: 0.3"),
        _v3("all boxes", "confidence_threshold: -1 nms_threshold: 0.3"),
        _v3("several images", "confidence_threshold: 0.4 nms_threshold: 0.1", images=2),
        _v3("nothing found", "confidence_threshold: 0.999", images=3),
        _v3("nothing suppressed", "confidence_threshold: 0.3 nms_threshold: 1.5"),
    )


def _v2(name: str, shapes: tuple[Shape, ...], params: str, draws: Draw = _logits) -> Example:
    text = f"num_classes: 3 num_box: 2 biases: 1.08 biases: 1.19 biases: 3.42 biases: 4.41 {params}"
    return Example(name, shapes, f"yolo_detection_output_param {{ {text} }}", draws=(draws,), gradients=False)


class YoloDetectionOutput(Detections):
    """The detections of YOLO v2: each box's best class, if it reaches the threshold, the best of those that overlap.

    Source: eric612/MobileNet-YOLO src/caffe/layers/yolo_detection_output_layer.cpp Forward_cpu, ApplyNms.
    Shape: N×(num_box·(5 + classes))×S×S, and maybe a second scale → 1×1×M×7: 0, label + 1, score, xmin, ymin, xmax,
        ymax, by falling score. M is known only after the run; a declared shape has 1. With no detection there is a row
        image, -1, -1, -1, -1, -1, -1 for each image.
    Blobs: none.
    Differs: as Yolov3DetectionOutput. Channels of an anchor beyond its classes are not looked at. Planes that are not
        square, where Caffe takes the wrong cells, are refused.
    """

    type = "YoloDetectionOutput"
    params = (YoloDetectionOutputParameter,)
    bottoms = Arity(1, 2)

    def found(self, layer: Layer) -> Found:
        p, count = layer.get(YoloDetectionOutputParameter), len(layer.bottoms)
        if not p.has("num_classes") or not p.num_box:
            raise layer.error("it needs num_classes, and num_box of at least 1")
        anchors = anchor_pairs(layer, p.biases, range(p.num_box))
        scales = (1,) * count
        return Found((anchors,) * count, scales, p.num_classes, p.confidence_threshold, p.nms_threshold, False)

    def fits(self, channels: int, anchors: int, each: int) -> bool:
        return channels % anchors == 0 and channels // anchors >= each

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        tops = super().shapes(layer, bottoms)
        if any(bottom[2] != bottom[3] for bottom in bottoms):
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): its bottoms are {show_all(bottoms)}; it needs square planes"
            )
        return tops

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.detection._yolo_modules import YoloDetections

        return YoloDetections(*self.found(layer)[:-1])

    examples = (
        _v2("plain", ((1, 16, 3, 3),), "confidence_threshold: 0.2"),
        _v2("two scales, two images", ((2, 16, 3, 3), (2, 16, 6, 6)), "confidence_threshold: 0.3 nms_threshold: 0.2"),
        _v2("channels left over", ((1, 20, 4, 4),), "confidence_threshold: 0"),
        _v2("nothing found", ((2, 16, 2, 2),), "confidence_threshold: 1"),
        _v2("equal scores", ((1, 16, 2, 2),), "confidence_threshold: 0.1", literal([0.5] * 64)),
    )
