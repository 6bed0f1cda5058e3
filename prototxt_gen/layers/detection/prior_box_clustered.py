"""Layer type PriorBoxClustered (Intel): prior boxes of given widths and heights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer
from prototxt_gen.layers.detection._prior_boxes import PriorBoxBase, PriorBoxParameter, Size
from prototxt_gen.layers.example import Example

if TYPE_CHECKING:
    pass


class PriorBoxClustered(PriorBoxBase):
    """Create prior boxes of the given widths and heights (usually found by clustering) around each position.

    Source: the fork of OpenVINO's training toolbox, known from its published models; computed as in OpenCV's PriorBox.
    Shape: feature map N×C×H×W, image N×C×H₀×W₀ → 1×2×4P: boxes, variances.
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator; the ONNX form is a constant for the declared sizes.
    """

    type = "PriorBoxClustered"

    def box_sizes(self, layer: Layer) -> list[Size]:
        p = layer.get(PriorBoxParameter)
        if not p.width or len(p.width) != len(p.height):
            raise layer.error(
                f"it has {len(p.width)} width and {len(p.height)} height; it needs equally many, and at least one"
            )
        if p.min_size or p.max_size or p.aspect_ratio:
            raise layer.error("min_size, max_size and aspect_ratio are fields of PriorBox")
        return list(zip(p.width, p.height, strict=True))

    examples = (
        Example(
            "plain",
            ((1, 2, 3, 2), (1, 3, 48, 32)),
            "prior_box_param { clip: false variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 step: 16 "
            "offset: 0.5 width: 9.4 width: 25.1 height: 15 height: 39.6 }",
            gradients=False,
        ),
        Example(
            "clipped, steps of the image",
            ((1, 2, 2, 2), (1, 3, 50, 30)),
            "prior_box_param { clip: true variance: 0.1 width: 9.5 height: 45 }",
            gradients=False,
        ),
    )
