"""Layer type SoftmaxWithLoss; also the cross-entropy function that other losses use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import Arity
from prototxt_gen.layers.example import Example, labels, literal, normal
from prototxt_gen.layers.loss_base import (
    FLT_MIN,
    Loss,
    as_labels,
    check_labels,
    normalization_mode,
    normalizer,
    with_gradient_of,
)
from prototxt_gen.layers.utility.softmax import SoftmaxParameter
from prototxt_gen.schema.caffe_proto import LossParameter

if TYPE_CHECKING:
    from torch import Tensor, nn

NO_LABEL = -(2**40)
"""A number that is no int32 label. Torch needs a label to ignore, and its default, -100, may be a real label."""
MAX_LOSS = -math.log(FLT_MIN)
"""Greatest loss of one position: Caffe limits probabilities to at least FLT_MIN."""


def cross_entropy(scores: Tensor, label: Tensor, ignored: int = NO_LABEL) -> Tensor:
    """Return the loss of each row of scores R×C for R int64 labels, limited as in Caffe.

    The gradient is not limited.
    """
    from torch.nn import functional

    each = functional.cross_entropy(scores, label, reduction="none", ignore_index=ignored)
    return with_gradient_of(each.clamp(max=MAX_LOSS), each)


class SoftmaxWithLoss(Loss):
    """Compute minus the logarithm of the softmax of the true class; an optional second top is the softmax.

    Source: src/caffe/layers/softmax_loss_layer.cpp.
    Shape: scores N×C×…, labels N×… → scalar, N×C×….
    Blobs: none.
    Differs: torch.nn.CrossEntropyLoss takes integer labels and has no loss_param, which selects the divisor of the sum.
        The loss of a position is at most 87.3; its gradient is not limited. BVLC Caffe stops if there are two tops,
        whatever their loss_weight, because its inner Softmax layer receives both weights.
    """

    type = "SoftmaxWithLoss"
    params = (LossParameter, SoftmaxParameter)
    tops = Arity(0, 2)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        axis = canonical_axis(layer, layer.get(SoftmaxParameter).axis, bottoms[0])
        check_labels(layer, bottoms[0], bottoms[1], axis)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p, axis = layer.get(LossParameter), canonical_axis(layer, layer.get(SoftmaxParameter).axis, bottoms[0])
        mode, ignored = normalization_mode(p), p.ignore_label if p.has("ignore_label") else NO_LABEL
        with_probabilities = len(layer.tops) == 2

        class SoftmaxWithLoss(nn.Module):
            def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
                rows, label = x.movedim(axis, -1).reshape(-1, x.shape[axis]), as_labels(label)
                outer = math.prod(x.shape[:axis])
                valid = (label != ignored).sum()
                loss = cross_entropy(rows, label, ignored).sum() / normalizer(mode, outer, len(rows) // outer, valid)
                return (loss, x.detach().softmax(axis)) if with_probabilities else loss

        return SoftmaxWithLoss()

    examples = (
        Example("plain", ((3, 4), (3,)), draws=(normal, labels(4)), gradients=(True, False)),
        Example(
            "axis from the end",
            ((2, 2, 3), (2, 2)),
            "softmax_param { axis: -1 }",
            draws=(normal, labels(3)),
            gradients=(True, False),
        ),
        *(
            Example(
                f"ignore_label, {mode}",
                ((2, 3, 2), (2, 2)),
                f"loss_param {{ ignore_label: 1 normalization: {mode} }}",
                draws=(normal, literal([0, 1, 2, 1])),
                gradients=(True, False),
            )
            for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
        ),
        Example(
            "normalize as of old",
            ((2, 3, 2), (2, 2)),
            "loss_param { normalize: false }",
            draws=(normal, labels(3)),
            gradients=(True, False),
        ),
        Example(
            "all ignored",
            ((2, 3), (2,)),
            "loss_param { ignore_label: 255 }",
            draws=(normal, literal([255, 255])),
            gradients=(True, False),
        ),
        Example(
            "hopelessly wrong",
            ((2, 2), (2,)),
            draws=(literal([[200, 0], [0, 1]]), literal([1, 1])),
            gradients=(True, False),
        ),
        Example("weighted", ((3, 4), (3,)), "loss_weight: 0.3", draws=(normal, labels(4)), gradients=(True, False)),
    )
