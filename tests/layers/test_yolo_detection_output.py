"""The detections of YOLO v2 and v3, compared with loops that follow MobileNet-YOLO's C++ code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from prototxt_gen.common.errors import NetError, UnsupportedError
from tests.layers.test_window_layers import both

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)
BIASES = (12, 20, 40, 30, 70, 90, 33, 80)
SCALES, MASK = (32, 16), (2, 3, 0, 1)
V3 = " ".join(
    ["num_classes: 3 num_box: 2"]
    + [f"biases: {b}" for b in BIASES]
    + [f"anchors_scale: {s}" for s in SCALES]
    + [f"mask: {m}" for m in MASK]
)
V2 = "num_classes: 3 num_box: 2 biases: 1.08 biases: 1.19 biases: 3.42 biases: 4.41"


class Prediction(NamedTuple):
    x: float
    y: float
    w: float
    h: float
    label: int
    confidence: float


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def v3_predictions(bottoms: Sequence[Array], least: float) -> Iterator[Prediction]:
    """Forward_cpu, get_region_box and correct_yolo_boxes over the elements in memory order."""
    for t, bottom in enumerate(bottoms):
        flat, (batch, channels, high, wide) = bottom.reshape(-1), bottom.shape
        stride, nw, nh = high * wide, wide * SCALES[t], high * SCALES[t]
        for b in range(batch):
            for s in range(stride):
                for n in range(2):
                    index = n * 8 * stride + s + b * channels * stride
                    swap = [flat[index + c * stride] for c in range(8)]
                    anchor = MASK[n + t * 2]
                    for c in range(3):
                        score = sigmoid(swap[5 + c]) * sigmoid(swap[4])
                        if score > least:
                            x = (s % wide + sigmoid(swap[0])) / wide
                            y = (s // wide + sigmoid(swap[1])) / high
                            w = math.exp(swap[2]) * BIASES[2 * anchor] / nw
                            h = math.exp(swap[3]) * BIASES[2 * anchor + 1] / nh
                            yield corrected(Prediction(x, y, w, h, c, score), wide, high, nw, nh)


def corrected(p: Prediction, w: int, h: int, netw: int, neth: int) -> Prediction:
    new_w, new_h = (netw, (h * netw) // w) if netw / w < neth / h else ((w * neth) // h, neth)
    return p._replace(
        x=(p.x - (netw - new_w) / 2.0 / netw) / (new_w / netw),
        y=(p.y - (neth - new_h) / 2.0 / neth) / (new_h / neth),
        w=p.w * netw / new_w,
        h=p.h * neth / new_h,
    )


def v2_predictions(bottoms: Sequence[Array], least: float) -> Iterator[Prediction]:
    biases = (1.08, 1.19, 3.42, 4.41)
    for bottom in bottoms:
        swap, side = bottom.transpose(0, 2, 3, 1).reshape(bottom.shape[0], -1, 2, bottom.shape[1] // 2), bottom.shape[3]
        for b, cell, n in np.ndindex(*swap.shape[:3]):
            one = swap[b, cell, n]
            i, j = cell % side, cell // side
            scores = [math.exp(v - max(one[5:8])) for v in one[5:8]]
            best = max(range(3), key=lambda c: scores[c])
            confidence = sigmoid(one[4]) * scores[best] / sum(scores)
            if confidence >= least:
                w, h = (math.exp(one[2 + k]) * biases[2 * n + k] / side for k in (0, 1))
                yield Prediction((i + sigmoid(one[0])) / side, (j + sigmoid(one[1])) / side, w, h, best, confidence)


def iou(a: Prediction, b: Prediction) -> float:
    wide = min(a.x + a.w / 2, b.x + b.w / 2) - max(a.x - a.w / 2, b.x - b.w / 2)
    high = min(a.y + a.h / 2, b.y + b.h / 2) - max(a.y - a.h / 2, b.y - b.h / 2)
    shared = 0 if wide < 0 or high < 0 else wide * high
    return shared / (a.w * a.h + b.w * b.h - shared)


def rows(predictions: Iterator[Prediction], threshold: float, images: int) -> Array:
    """The sort, ApplyNms and the rows of the top."""
    boxes = sorted(predictions, key=lambda p: -p.confidence)
    gone: set[int] = set()
    for i in range(len(boxes)):
        if i not in gone:
            gone |= {j for j in range(i + 1, len(boxes)) if iou(boxes[i], boxes[j]) >= threshold}
    kept = [p for i, p in enumerate(boxes) if i not in gone]
    if not kept:
        return np.array([[i] + [-1] * 6 for i in range(images)])[None, None]
    made = [[0, p.label + 1, p.confidence, p.x - p.w / 2, p.y - p.h / 2, p.x + p.w / 2, p.y + p.h / 2] for p in kept]
    return np.array(made)[None, None]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(("least", "threshold"), [(0.2, 0.45), (0.01, 0.2), (0.9999, 0.45), (0.3, 2.0)])
def test_yolov3_matches_mobilenet_yolo(images: int, least: float, threshold: float) -> None:
    bottoms = [RNG.normal(size=(images, 16, 2, 3)) * 1.5, RNG.normal(size=(images, 16, 4, 6)) * 1.5]
    params = f"{V3} confidence_threshold: {least} nms_threshold: {threshold}"
    (got,) = both("Yolov3DetectionOutput", bottoms, f"yolov3_detection_output_param {{ {params} }}")
    np.testing.assert_allclose(got, rows(v3_predictions(bottoms, least), threshold, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(("least", "threshold"), [(0.2, 0.45), (0.0, 0.2), (0.9999, 0.45), (0.3, 2.0)])
def test_yolov2_matches_mobilenet_yolo(images: int, least: float, threshold: float) -> None:
    bottoms = [RNG.normal(size=(images, 16, 3, 3)) * 1.5, RNG.normal(size=(images, 18, 5, 5)) * 1.5]
    params = f"{V2} confidence_threshold: {least} nms_threshold: {threshold}"
    for some in (bottoms[:1], bottoms):
        (got,) = both("YoloDetectionOutput", some, f"yolo_detection_output_param {{ {params} }}")
        np.testing.assert_allclose(got, rows(v2_predictions(some, least), threshold, images), rtol=1e-4, atol=1e-5)


def test_overlap_equal_to_the_threshold_is_suppressed() -> None:
    """Two equal boxes overlap by 1; ONNX's NonMaxSuppression alone would keep both."""
    bottom = np.full((1, 16, 1, 1), 0.5)
    params = f"{V2.replace('3.42', '1.08').replace('4.41', '1.19')} confidence_threshold: 0.1 nms_threshold: 1"
    (got,) = both("YoloDetectionOutput", [bottom], f"yolo_detection_output_param {{ {params} }}")
    assert got.shape == (1, 1, 1, 7)


@pytest.mark.parametrize(
    ("type_", "params", "shapes", "message"),
    [
        ("Yolov3DetectionOutput", V3, [(1, 16, 2, 2)], "it needs mask_group_num bottoms, 2, not 1"),
        ("Yolov3DetectionOutput", V3, [(1, 16, 2, 2), (1, 15, 4, 4)], "needs 2·\\(5 \\+ num_classes\\) channels, 16"),
        ("Yolov3DetectionOutput", V3 + " gaussian_box: true", [(1, 16, 2, 2)] * 2, "Caffe's CPU and GPU code differ"),
        ("Yolov3DetectionOutput", V3.replace("mask: 0 mask: 1", ""), [(1, 16, 2, 2)] * 2, "its mask has 2"),
        (
            "Yolov3DetectionOutput",
            V3 + " mask_group_num: 2 nms_threshold: 0",
            [(1, 16, 2, 2)] * 2,
            "the best box only",
        ),
        ("YoloDetectionOutput", V2, [(1, 16, 2, 3)], "they must be square"),
        ("YoloDetectionOutput", V2.replace("biases: 4.41", ""), [(1, 16, 2, 2)], "it has 3 biases"),
    ],
)
def test_wrong_parameters_are_refused(type_: str, params: str, shapes: list[tuple[int, ...]], message: str) -> None:
    field = "yolo_detection_output_param" if type_ == "YoloDetectionOutput" else "yolov3_detection_output_param"
    with pytest.raises((NetError, UnsupportedError), match=message):
        both(type_, [np.zeros(shape) for shape in shapes], f"{field} {{ {params} }}")
