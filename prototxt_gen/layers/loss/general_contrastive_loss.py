"""Layer type GeneralContrastiveLoss (NormFace): margins on distances to classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity
from prototxt_gen.layers.example import Example, labels, literal, positive
from prototxt_gen.layers.loss_base import Loss, as_labels, legacy_size, with_gradient_of
from prototxt_gen.schema.message import Message, boolean, float32

if TYPE_CHECKING:
    from torch import Tensor, nn


class GeneralContrastiveParameter(Message, field="general_contrastive_loss_param", number=215):
    positive_margin = float32(1)
    negative_margin = float32(2, 1.0)
    positive_weight = float32(3, 1.0)
    negative_weight = float32(4, 1.0)
    normalize_negative = float32(5)
    positive_outlier_thresh = float32(6, 4.0)
    square = boolean(7)
    max_negative_only = boolean(8)
    max_positive_only = boolean(9)
    positive_first = boolean(10)
    positive_upper_bound = float32(11, 1.0)
    exp_negative_weight = boolean(12)
    add_intra_mae = boolean(13)
    max_negative_margin = float32(14, 1.2)


_UNSUPPORTED = ("max_negative_only", "max_positive_only", "positive_first", "add_intra_mae")


class GeneralContrastiveLoss(Loss):
    """Penalise a distance to the true class above a margin and distances to other classes below a margin.

    Source: happynear/caffe-windows src/caffe/layers/general_constrastive_loss_layer.cpp (NormFace's).
    Shape: distances N×C, N labels → scalar; 2 numbers: the mean excess for the true class, the mean shortfall for the
        others.
    Blobs: none.
    Differs: PyTorch has no such module. Distances above positive_outlier_thresh have no gradient. A third bottom and
        the options that select the hardest items are not supported.
    """

    type = "GeneralContrastiveLoss"
    params = (GeneralContrastiveParameter,)
    bottoms = Arity(2, 3)
    tops = Arity(0, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        super().shapes(layer, bottoms)
        return [(), (3 if layer.get(GeneralContrastiveParameter).add_intra_mae else 2,)][: len(layer.tops)]

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        legacy_size(layer, bottoms[0], 0)

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        p, both = layer.get(GeneralContrastiveParameter), len(layer.tops) == 2
        unsupported = [name for name in _UNSUPPORTED if getattr(p, name)]
        unsupported += ["normalize_negative"] if p.has("normalize_negative") else []
        if unsupported or len(bottoms) == 3:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): {', '.join(unsupported) or 'a third bottom'} is not supported"
            )

        class GeneralContrastiveLoss(nn.Module):
            def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
                rows = x.reshape(len(x), -1)
                true = torch.zeros_like(rows).scatter_(1, as_labels(label)[: len(rows), None], 1.0)
                excess, shortfall = _excess(p, rows) * true, (p.negative_margin - rows).relu() * (1 - true)
                negative = _shortfall_loss(p, rows, shortfall)
                loss = (p.positive_weight * excess).abs() + negative
                loss = with_gradient_of(loss, p.positive_weight * excess + negative).sum() / len(x)
                means = torch.stack([excess.sum(), shortfall.sum() / (rows.shape[1] - 1)]).detach() / len(x)
                return (loss, means) if both else loss

        return GeneralContrastiveLoss()

    examples = (
        Example("plain", ((3, 4), (3,)), draws=(positive, labels(4))),
        Example(
            "two tops, outliers, exponential",
            ((3, 3), (3, 1)),
            "loss_weight: 1 loss_weight: 0 general_contrastive_loss_param { positive_margin: 0.2 negative_margin: 2 "
            "negative_weight: 0.5 positive_outlier_thresh: 3 exp_negative_weight: true }",
            2,
            draws=(literal([[9, 1, 0.3], [1, 0.1, 5], [0.5, 1.5, 2.5]]), literal([0, 1, 2])),
        ),
    )


def _excess(p: GeneralContrastiveParameter, distance: Tensor) -> Tensor:
    """Return how far distances exceed the margin, at most the outlier threshold; no gradient above the threshold."""
    over = (distance - p.positive_margin).relu().clamp(max=p.positive_outlier_thresh)
    return with_gradient_of(over, over * (distance.detach() < p.positive_outlier_thresh))


def _shortfall_loss(p: GeneralContrastiveParameter, distance: Tensor, shortfall: Tensor) -> Tensor:
    """Return the loss of distances that fall short of the margin by `shortfall`."""
    if not p.exp_negative_weight:
        return p.negative_weight * shortfall
    return p.negative_weight * (-distance).exp() * (shortfall.detach() > 0)
