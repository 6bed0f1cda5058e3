"""What loss layer types share: the scalar top, the normaliser, and gradients that are not those of the value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, LayerType, exactly, show_all
from prototxt_gen.schema.caffe_proto import LossParameter

if TYPE_CHECKING:
    from torch import Tensor

LOG_THRESHOLD = 1e-20
"""The least probability under a logarithm. Source: include/caffe/layers/loss_layer.hpp kLOG_THRESHOLD."""
LEAST_FLOAT = 2.0**-126
"""FLT_MIN, the least normal float32."""


def legacy(layer: Layer, shape: Shape, axis: int) -> int:
    """Return num, channels, height or width (axis 0 to 3) of a blob with up to four axes; missing ones count 1.

    Source: include/caffe/blob.hpp Blob::LegacyShape.
    """
    if len(shape) > 4:
        raise layer.error(f"its bottom {show(shape)} has {len(shape)} axes; it takes at most 4")
    return shape[axis] if axis < len(shape) else 1


def check_labels(layer: Layer, scores: Shape, labels: Shape, axis: int) -> None:
    """One label for each position outside `axis`. Source: src/caffe/layers/softmax_loss_layer.cpp Reshape."""
    expected = math.prod(scores[:axis]) * math.prod(scores[axis + 1 :])
    if math.prod(labels) != expected:
        raise layer.error(
            f"bottoms differ, {show_all((scores, labels))}; with classes on axis {axis} it needs {expected} labels"
        )


class Loss(LayerType):
    """What all losses share: two bottoms of one batch size, and a scalar top, which a prototxt may leave out.

    Source: src/caffe/layers/loss_layer.cpp LossLayer::Reshape, loss_layer.hpp AutoTopBlobs.
    """

    loss = True
    bottoms = exactly(2)
    tops = Arity(0, 1)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not bottoms[0] or not bottoms[1] or bottoms[0][0] != bottoms[1][0]:
            raise layer.error(f"bottoms differ, {show_all(bottoms[:2])}; it needs an equal first axis")
        weights = len(layer.params.loss_weight)
        if len(layer.tops) == 2 and weights != 2:
            raise layer.error(f"it has two tops and {weights} loss_weight; it needs one for each top")
        self.check(layer, bottoms)
        return [(), bottoms[0]][: len(layer.tops)]

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        """Raise `layer.error(…)` where the bottoms do not fit further."""


def normalization(p: LossParameter, default: str = "VALID") -> str:
    """Return the mode that loss_param means; the deprecated `normalize` counts where `normalization` is not set.

    Source: src/caffe/layers/softmax_loss_layer.cpp LayerSetUp.
    """
    if p.has("normalization"):
        return p.normalization
    if p.has("normalize"):
        return "VALID" if p.normalize else "BATCH_SIZE"
    return default


def normalizer(mode: str, outer: int, inner: int, valid: Tensor) -> Tensor | float:
    """Return what a sum of losses is divided by, at least 1: `valid` counts the positions that are not ignored.

    Source: src/caffe/layers/softmax_loss_layer.cpp SoftmaxWithLossLayer::get_normalizer.
    """
    if mode == "VALID":
        return valid.clamp(min=1)
    return float(max(1, {"FULL": outer * inner, "BATCH_SIZE": outer, "NONE": 1}[mode]))


def carried(value: Tensor, by: Tensor) -> Tensor:
    """Return `value` with the gradient of `by`: for layers whose backward pass is not their forward pass's derivative.

    The difference of `by` with itself is an exact zero, so the value is exact too.
    """
    return by - by.detach() + value.detach()


def as_labels(labels: Tensor) -> Tensor:
    """Return a flat int64 view of a label blob, cut towards zero as C++ casts floats."""
    return labels.detach().reshape(-1).long()
