"""The base class of loss layer types, and functions for normalisation, labels and Caffe's own gradients."""

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
"""Smallest probability whose logarithm is taken. Source: include/caffe/layers/loss_layer.hpp kLOG_THRESHOLD."""
FLT_MIN = 2.0**-126
"""C's FLT_MIN, the smallest positive normal float32."""


def legacy_size(layer: Layer, shape: Shape, axis: int) -> int:
    """Return num, channels, height or width (axis 0 to 3) of a blob of at most four axes; a missing axis has size 1.

    Raises NetError if the blob has more than four axes. Source: include/caffe/blob.hpp Blob::LegacyShape.
    """
    if len(shape) > 4:
        raise layer.error(f"its bottom {show(shape)} has {len(shape)} axes; at most 4 are allowed")
    return shape[axis] if axis < len(shape) else 1


def check_labels(layer: Layer, scores: Shape, labels: Shape, axis: int) -> None:
    """Raise NetError unless there is one label for each position outside the class axis `axis`.

    Source: src/caffe/layers/softmax_loss_layer.cpp Reshape.
    """
    expected = math.prod(scores[:axis]) * math.prod(scores[axis + 1 :])
    if math.prod(labels) != expected:
        raise layer.error(
            f"bottoms differ, {show_all((scores, labels))}; with classes on axis {axis} it needs {expected} labels"
        )


class Loss(LayerType):
    """Base class of losses: two bottoms with equal batch sizes and a scalar top, which a prototxt may omit.

    Source: src/caffe/layers/loss_layer.cpp LossLayer::Reshape, loss_layer.hpp AutoTopBlobs.
    """

    loss = True
    bottoms = exactly(2)
    tops = Arity(0, 1)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not bottoms[0] or not bottoms[1] or bottoms[0][0] != bottoms[1][0]:
            raise layer.error(f"bottoms differ, {show_all(bottoms[:2])}; it needs equal batch sizes")
        weights = len(layer.params.loss_weight)
        if len(layer.tops) == 2 and weights != 2:
            raise layer.error(f"it has two tops and {weights} loss_weight; it needs a loss_weight for each top")
        self.check(layer, bottoms)
        return [(), bottoms[0]][: len(layer.tops)]

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        """Raise `layer.error(…)` if the parameters or the bottom shapes are not valid. Default: no check."""


def normalization_mode(p: LossParameter, default: str = "VALID") -> str:
    """Return the normalisation mode of loss_param: `normalization`, else the deprecated `normalize`, else `default`.

    Source: src/caffe/layers/softmax_loss_layer.cpp LayerSetUp.
    """
    if p.has("normalization"):
        return p.normalization
    if p.has("normalize"):
        return "VALID" if p.normalize else "BATCH_SIZE"
    return default


def normalizer(mode: str, outer: int, inner: int, valid: Tensor) -> Tensor | float:
    """Return the number, at least 1, by which a sum of losses is divided.

    `valid` is the number of positions that are not ignored.

    Source: src/caffe/layers/softmax_loss_layer.cpp SoftmaxWithLossLayer::get_normalizer.
    """
    if mode == "VALID":
        return valid.clamp(min=1)
    return float(max(1, {"FULL": outer * inner, "BATCH_SIZE": outer, "NONE": 1}[mode]))


def with_gradient_of(value: Tensor, source: Tensor) -> Tensor:
    """Return `value` with the gradient of `source`.

    Layers use it whose backward pass in Caffe is not the derivative of their forward pass. `source` minus itself is
    exactly 0, so the value does not change.
    """
    return source - source.detach() + value.detach()


def as_labels(labels: Tensor) -> Tensor:
    """Return the labels as a flat int64 tensor, truncated towards zero as in C++."""
    return labels.detach().reshape(-1).long()
