"""Layer type PriorBox (SSD): default boxes at each position of a feature map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer
from prototxt_gen.layers.detection._prior_boxes import PriorBoxBase, PriorBoxParameter, Size, all_positive
from prototxt_gen.layers.example import Example

if TYPE_CHECKING:
    pass


def aspect_ratios(p: PriorBoxParameter) -> list[float]:
    """Return the ratios, first 1, each only once. Source: prior_box_layer.cpp PriorBoxLayer::LayerSetUp."""
    ratios = [1.0]
    for ratio in p.aspect_ratio:
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1 / ratio] if p.flip else [ratio]
    return ratios


class PriorBox(PriorBoxBase):
    """Create the prior boxes of the SSD detector, around each position of the first bottom.

    For each min_size there are: a square of that size; a square of size √(min_size·max_size) if there is a max_size;
    and a box of the same area for each aspect ratio.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/prior_box_layer.cpp.
    Shape: feature map N×C×H×W, image N×C×H₀×W₀ → 1×2×4P: boxes, variances.
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator; the ONNX form is a constant for the declared sizes. Sizes are
        truncated to whole pixels. `clip` is false by default, as in the last version of the SSD repository, but true in
        its first version and in some forks. If the result depends on it, `clip` must be given.
    """

    type = "PriorBox"

    def box_sizes(self, layer: Layer) -> list[Size]:
        p = layer.get(PriorBoxParameter)
        self._check_sizes(layer, p)
        sizes: list[Size] = []
        for index, size in enumerate(map(math.trunc, p.min_size)):
            larger = [(math.sqrt(size * math.trunc(p.max_size[index])),) * 2] if p.max_size else []
            others = [(size * math.sqrt(r), size / math.sqrt(r)) for r in aspect_ratios(p) if abs(r - 1) >= 1e-6]
            sizes += [(size, size), *(others + larger if p.tf else larger + others)]
        return sizes

    def _check_sizes(self, layer: Layer, p: PriorBoxParameter) -> None:
        if not p.min_size or not all_positive(p.min_size):
            raise layer.error("it needs a min_size greater than 0")
        if not (all_positive(p.max_size) and all_positive(p.aspect_ratio)):
            raise layer.error("max_size and aspect_ratio must be greater than 0 and finite")
        if p.width or p.height:
            raise layer.error("width and height are fields of PriorBoxClustered")
        if p.max_size and len(p.max_size) != len(p.min_size):
            raise layer.error(
                f"it has {len(p.min_size)} min_size and {len(p.max_size)} max_size; it needs equally many or none"
            )
        if any(high <= low for high, low in zip(p.max_size, p.min_size, strict=False)):
            raise layer.error("each max_size must be greater than its min_size")

    examples = (
        Example(
            "one size", ((1, 2, 3, 2), (1, 3, 24, 20)), "prior_box_param { min_size: 5 clip: false }", gradients=False
        ),
        Example(
            "as SSD has it",
            ((2, 2, 3, 3), (2, 3, 30, 30)),
            "prior_box_param { min_size: 6 max_size: 11 aspect_ratio: 2 aspect_ratio: 3 flip: true clip: true "
            "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 step: 8 offset: 0.5 }",
            gradients=False,
        ),
        Example(
            "lists, fractions, repeated ratios, no flip",
            ((1, 1, 2, 3), (1, 1, 17, 23)),
            "prior_box_param { min_size: 4.7 min_size: 9 max_size: 7.9 max_size: 12 aspect_ratio: 1 aspect_ratio: 2 "
            "aspect_ratio: 2 flip: false clip: false variance: 0.3 offset: 0 }",
            gradients=False,
        ),
        Example(
            "own image and steps",
            ((1, 1, 2, 2), (1, 1, 9, 9)),
            "prior_box_param { min_size: 4 aspect_ratio: 2 aspect_ratio: 0.5 clip: false img_h: 20 img_w: 30 "
            "step_h: 5 step_w: 7.5 }",
            gradients=False,
        ),
        Example(
            "square image",
            ((1, 1, 2, 2), (1, 1, 9, 9)),
            "prior_box_param { min_size: 4 clip: false img_size: 20 }",
            gradients=False,
        ),
    )
