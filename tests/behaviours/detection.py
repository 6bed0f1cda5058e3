"""Layers of SSD and of region proposal nets."""
# ruff: noqa: E501 (tables: a net a line)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prototxt_gen.layers.example import probabilities
from tests.behaviours.notation import B

if TYPE_CHECKING:
    import numpy as np


def priors(name: str, params: str, **more: Any) -> B:
    line = f"p: PriorBox data image > p | prior_box_param {{ {params} }}"
    return B(f"priorbox: {name}", "data 1 2 2 3; image 1 3 60 90", line, **more)


PRIORS = (
    priors("one size", "min_size: 20"),
    priors("max_size, ratios, flip", "min_size: 20 max_size: 40 aspect_ratio: 2 aspect_ratio: 3 clip: false"),
    priors("no flip", "min_size: 20 aspect_ratio: 2 flip: false"),
    priors("clip, four variances", "min_size: 50 clip: true variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"),
    priors("step and offset", "min_size: 20 step: 16 offset: 0.25 clip: false"),
    priors("step_h and step_w", "min_size: 20 step_h: 30 step_w: 20"),
    priors("img_size", "min_size: 20 img_size: 100"),
    priors("img_h and img_w", "min_size: 20 img_h: 100 img_w: 120"),
    priors("no clip, though boxes reach beyond", "min_size: 50", refused_here="forks' defaults for clip differ"),
    priors("two sizes each", "min_size: 20 min_size: 30 max_size: 40 max_size: 50 aspect_ratio: 2 clip: true"),
)


def corners(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Draw boxes inside the image, as PriorBox returns them: 1x2x4·boxes, the second row holds variances."""
    import numpy as np

    count = shape[2] // 4
    low = rng.uniform(0, 0.6, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.4, (count, 2))], axis=1)
    return np.stack([boxes.ravel(), np.tile([0.1, 0.1, 0.2, 0.2], count)])[None].reshape(shape)


def detect(name: str, params: str, inputs: str = "loc 1 48; conf 1 36; prior 1 2 48", **more: Any) -> B:
    line = f"out: DetectionOutput loc conf prior > out | detection_output_param {{ {params} }}"
    return B(f"detectionoutput: {name}", inputs, line, draws={"prior": corners, "conf": probabilities}, **more)


_NMS = "nms_param { nms_threshold: 0.45 top_k: 10 }"
DETECTIONS = (
    detect("SSD's", f"num_classes: 3 {_NMS} code_type: CENTER_SIZE keep_top_k: 8 confidence_threshold: 0.3"),
    detect("corners", f"num_classes: 3 {_NMS} keep_top_k: 8 confidence_threshold: 0.3"),
    detect("corner size", f"num_classes: 3 {_NMS} code_type: CORNER_SIZE keep_top_k: 8 confidence_threshold: 0.3"),
    detect("no keep_top_k", f"num_classes: 3 {_NMS} code_type: CENTER_SIZE confidence_threshold: 0.5"),
    detect("variance in the targets", f"num_classes: 3 {_NMS} code_type: CENTER_SIZE variance_encoded_in_target: true keep_top_k: 9"),
    detect("background last", f"num_classes: 3 background_label_id: 2 {_NMS} code_type: CENTER_SIZE keep_top_k: 9"),
    detect("boxes by class", f"num_classes: 3 share_location: false {_NMS} code_type: CENTER_SIZE keep_top_k: 9",
           "loc 1 144; conf 1 36; prior 1 2 48"),
    detect("two images", f"num_classes: 3 {_NMS} code_type: CENTER_SIZE keep_top_k: 8 confidence_threshold: 0.3",
           "loc 2 48; conf 2 36; prior 1 2 48"),
    detect("nothing found", f"num_classes: 3 {_NMS} code_type: CENTER_SIZE keep_top_k: 8 confidence_threshold: 0.99"),
)  # fmt: skip

HEADS = (
    B("ssd: a whole head", "data 1 3 12 12",
      """conv: Convolution data > conv | convolution_param { num_output: 4 kernel_size: 3 stride: 4 pad: 1 }
      norm: Normalize conv > norm | norm_param { across_spatial: false channel_shared: false }
      loc: Convolution norm > loc | convolution_param { num_output: 8 kernel_size: 3 pad: 1 }
      locp: Permute loc > locp | permute_param { order: 0 order: 2 order: 3 order: 1 }
      locf: Flatten locp > locf | flatten_param { axis: 1 }
      conf: Convolution norm > conf | convolution_param { num_output: 6 kernel_size: 3 pad: 1 }
      confp: Permute conf > confp | permute_param { order: 0 order: 2 order: 3 order: 1 }
      confr: Reshape confp > confr | reshape_param { shape { dim: 0 dim: -1 dim: 3 } }
      confs: Softmax confr > confs | softmax_param { axis: 2 }
      conff: Flatten confs > conff | flatten_param { axis: 1 }
      prior: PriorBox norm data > prior | prior_box_param { min_size: 4 max_size: 6 clip: false variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }
      out: DetectionOutput locf conff prior > out | include { phase: TEST } detection_output_param { num_classes: 3 background_label_id: 0 nms_param { nms_threshold: 0.45 top_k: 10 } code_type: CENTER_SIZE keep_top_k: 5 confidence_threshold: 0.01 }"""),
)  # fmt: skip

BEHAVIOURS = PRIORS + DETECTIONS + HEADS
