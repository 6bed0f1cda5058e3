"""Layer type Accuracy: the share of right predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.example import Example, labels, literal, normal
from prototxt_gen.layers.loss_base import as_labels, check_labels
from prototxt_gen.schema.message import Message, boolean, int32, uint32

if TYPE_CHECKING:
    from torch import nn


class AccuracyParameter(Message, field="accuracy_param", number=102):
    top_k = uint32(1, 1)
    axis = int32(2, 1)
    ignore_label = int32(3)
    min_is_better = boolean(4)
    """Field of happynear/caffe-windows: the bottom holds distances, and the smallest is the best."""


class Accuracy(LayerType):
    """Compute the share of positions whose label is among the top_k highest scores; a second top has it for each class.

    Source: src/caffe/layers/accuracy_layer.cpp.
    Shape: scores N×C×…, labels N×… → scalar, C.
    Blobs: none.
    Differs: PyTorch has no such module. A score that equals the label's counts as higher, so a net with all scores
        equal gets 0; in older Caffe, such as the SSD fork, the greater class index wins a tie. If no position counts,
        the result is 0.
    """

    type = "Accuracy"
    params = (AccuracyParameter,)
    bottoms = exactly(2)
    tops = Arity(1, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(AccuracyParameter)
        axis = canonical_axis(layer, p.axis, bottoms[0])
        check_labels(layer, bottoms[0], bottoms[1], axis)
        if p.top_k > math.prod(bottoms[0]) // max(1, math.prod(bottoms[1])):
            raise layer.error(f"top_k {p.top_k} is greater than the number of classes, {bottoms[0][axis]}")
        return [(), (bottoms[0][axis],)][: len(layer.tops)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import Tensor, nn

        p, axis = layer.get(AccuracyParameter), canonical_axis(layer, layer.get(AccuracyParameter).axis, bottoms[0])
        ignored, per_class = p.ignore_label if p.has("ignore_label") else None, len(layer.tops) == 2

        class Accuracy(nn.Module):
            @torch.no_grad()
            def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
                rows, label = x.movedim(axis, -1).reshape(-1, x.shape[axis]), as_labels(label)
                rows = -rows if p.min_is_better else rows
                if ignored is not None:
                    rows, label = rows[label != ignored], label[label != ignored]
                better = (rows >= rows.gather(1, label[:, None])).sum(1) - 1
                right = (better < p.top_k).to(x.dtype)
                total = right.sum() / max(1, len(right))
                return (total, _per_class(right, label, x.shape[axis])) if per_class else total

        def _per_class(right: Tensor, label: Tensor, classes: int) -> Tensor:
            count = torch.bincount(label, minlength=classes)
            return torch.bincount(label, right, minlength=classes).to(right.dtype) / count.clamp(min=1)

        return Accuracy()

    examples = (
        Example("plain", ((8, 3), (8,)), draws=(normal, labels(3)), gradients=False),
        Example("class by class", ((9, 4), (9, 1)), "", 2, draws=(normal, labels(3)), gradients=False),
        Example(
            "ties",
            ((4, 3), (4,)),
            "accuracy_param { top_k: 2 }",
            2,
            draws=(literal([[1, 1, 1], [2, 2, 0], [0, 3, 3], [1, 0, 1]]), literal([0, 1, 2, 2])),
            gradients=False,
        ),
        Example("top 2", ((8, 5), (8,)), "accuracy_param { top_k: 2 }", draws=(normal, labels(5)), gradients=False),
        Example("positions", ((2, 3, 2, 2), (2, 1, 2, 2)), "", 2, draws=(normal, labels(3)), gradients=False),
        Example(
            "axis from the end",
            ((2, 4, 3), (2, 4)),
            "accuracy_param { axis: -1 }",
            draws=(normal, labels(3)),
            gradients=False,
        ),
        Example(
            "ignore_label",
            ((2, 3, 2), (2, 2)),
            "accuracy_param { ignore_label: 1 }",
            2,
            draws=(normal, literal([0, 1, 2, 1])),
            gradients=False,
        ),
    )
