"""GeneralContrastiveLoss."""

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


_NOT_HERE = ("max_negative_only", "max_positive_only", "positive_first", "add_intra_mae")


class GeneralContrastiveLoss(Loss):
    """Of distances to each class: that of the true one beyond a margin, what the others lack of theirs.

    Source: happynear/caffe-windows src/caffe/layers/general_constrastive_loss_layer.cpp (NormFace's).
    Shape: N×C, N labels → scalar, 2 (mean distance of the true class, mean lack of the others).
    Blobs: none.
    Differs: PyTorch has none. Distances beyond positive_outlier_thresh have no gradient. A third bottom and the choices
        of hardest items only are not run here.
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
        unable = [name for name in _NOT_HERE if getattr(p, name)]
        unable += ["normalize_negative"] if p.has("normalize_negative") else []
        if unable or len(bottoms) == 3:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): it cannot be run with {', '.join(unable) or 'three bottoms'}"
            )

        class GeneralContrastiveLoss(nn.Module):
            def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
                rows = x.reshape(len(x), -1)
                true = torch.zeros_like(rows).scatter_(1, as_labels(label)[: len(rows), None], 1.0)
                far, lack = _far(p, rows) * true, (p.negative_margin - rows).relu() * (1 - true)
                loss = (p.positive_weight * far).abs() + _close(p, rows, lack)
                loss = with_gradient_of(loss, p.positive_weight * far + _close(p, rows, lack)).sum() / len(x)
                means = torch.stack([far.sum(), lack.sum() / (rows.shape[1] - 1)]).detach() / len(x)
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


def _far(p: GeneralContrastiveParameter, distance: Tensor) -> Tensor:
    """Return how far distances are beyond the margin, cut at the outlier threshold and without gradient from there."""
    over = (distance - p.positive_margin).relu().clamp(max=p.positive_outlier_thresh)
    return with_gradient_of(over, over * (distance.detach() < p.positive_outlier_thresh))


def _close(p: GeneralContrastiveParameter, distance: Tensor, lack: Tensor) -> Tensor:
    """Return the loss of distances that lack something of the margin."""
    if not p.exp_negative_weight:
        return p.negative_weight * lack
    return p.negative_weight * (-distance).exp() * (lack.detach() > 0)
