"""The Python layer ProposalLayer of Faster R-CNN, which many public nets use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, exactly, show_all
from prototxt_gen.layers.detection._proposal_rules import ProposalRules, as_tuples
from prototxt_gen.layers.detection.proposal import proposal_module
from prototxt_gen.layers.utility.python import PythonClass

if TYPE_CHECKING:
    from torch import nn

    from prototxt_gen.layers.detection._boxes import Floats
    from prototxt_gen.layers.onnx_graph import OnnxGraph

CONFIG: dict[str, float] = {
    "RPN_PRE_NMS_TOP_N": 6000,
    "RPN_POST_NMS_TOP_N": 300,
    "RPN_NMS_THRESH": 0.7,
    "RPN_MIN_SIZE": 16,
}
"""Settings that the layer reads from a configuration outside the net: lib/fast_rcnn/config.py, cfg.TEST."""
_BASE_SIZE = 16
_SCALES, _RATIOS = (8, 16, 32), (0.5, 1, 2)
_NO_LIMIT = 2**31 - 1
_SCORES = (-1, 1)


class ProposalLayer(PythonClass):
    """Propose regions from the outputs of a region proposal network, for one image (Python layer of py-faster-rcnn).

    Source: rbgirshick/py-faster-rcnn lib/rpn/proposal_layer.py ProposalLayer, lib/rpn/generate_anchors.py,
        lib/fast_rcnn/bbox_transform.py, lib/nms/py_cpu_nms.py; `ratios` as in sanghoon/pva-faster-rcnn.
    Shape: scores 1×2A×H×W (only the last A are used), box deltas 1×4A×H×W, image info 1×3 (height, width, scale) →
        regions R×5, rows of 0, x1, y1, x2, y2; their scores R×1. R is known only after the forward pass; the declared
        shape has the maximum.
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator. The number and the minimum size of the regions are in a
        configuration outside the net. Here its defaults for the TEST phase are used, unless param_str has
        RPN_PRE_NMS_TOP_N, RPN_POST_NMS_TOP_N, RPN_NMS_THRESH or RPN_MIN_SIZE, which the layer itself ignores.
    """

    module, layer = "rpn.proposal_layer", "ProposalLayer"
    bottoms = exactly(3)
    tops = Arity(1, 2)
    sized_by_data = True

    def assumed(self, layer: Layer) -> str:
        settings = self.settings(layer)
        defaults = [f"{name} {value:g}" for name, value in CONFIG.items() if name not in settings]
        if not defaults:
            return ""
        return (
            "settings in the configuration of its Python code are not part of the net: the defaults for TEST are "
            f"assumed, {', '.join(defaults)}; param_str may set others"
        )

    def rules(self, layer: Layer) -> ProposalRules:
        """Return the settings of the layer. Raises NetError if param_str has no feat_stride."""
        settings = self.settings(layer)
        if "feat_stride" not in settings:
            raise layer.error("its param_str has no feat_stride")
        pre, post, thresh, min_size = (settings.get(name, value) for name, value in CONFIG.items())
        boxes = anchors(settings.get("ratios", _RATIOS), settings.get("scales", _SCALES))
        pre, post = (int(limit) if limit > 0 else _NO_LIMIT for limit in (pre, post))
        return ProposalRules(boxes, int(settings["feat_stride"]), min_size, pre, post, thresh, (2, 2), True, False)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        rules = self.rules(layer)
        count = len(rules.anchors)
        score, delta, image = bottoms
        fits = len(score) == 4 and (score[:2], delta) == ((1, 2 * count), (1, 4 * count, *score[2:]))
        if not fits or image[:1] != (1,) or math.prod(image) < 3:
            raise layer.error(
                f"its bottoms are {show_all(bottoms)}; with {count} anchors it needs 1x{2 * count}xHxW, "
                f"1x{4 * count}xHxW and the image's height, width and scale"
            )
        max_regions = min(rules.post_nms_topn, count * math.prod(score[2:]))
        return [(max_regions, 5), (max_regions, 1)][: len(layer.tops)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        return proposal_module(self.rules(layer), len(layer.tops) == 2, _SCORES)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, Floats]
    ) -> str | Sequence[str]:
        from prototxt_gen.layers.detection._proposal_onnx import write_proposal

        regions, scores = write_proposal(g, self.rules(layer), bottoms)
        return [regions, g.op("Reshape", scores, g.const(list(_SCORES)))][: len(layer.tops)]


def anchors(ratios: Any, scales: Any) -> tuple[tuple[float, ...], ...]:
    """Return the boxes x1, y1, x2, y2 around the first position, one for each ratio and scale.

    Source: generate_anchors.py. As there, np.round rounds halves to even numbers.
    """
    import numpy as np

    widths = np.round(np.sqrt(_BASE_SIZE**2 / np.asarray(ratios, "float64")))
    heights = np.round(widths * np.asarray(ratios, "float64"))
    sides = np.stack([widths, heights], -1)[:, None] * np.asarray(scales, "float64")[:, None]
    half, center = (sides.reshape(-1, 2) - 1) / 2, (_BASE_SIZE - 1) / 2
    return as_tuples(np.concatenate([center - half, center + half], 1))
