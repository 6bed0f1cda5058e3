"""Layer type InfogainLoss: a softmax loss with a weight for each pair of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import Arity
from prototxt_gen.layers.example import Example, labels, literal, normal
from prototxt_gen.layers.loss_base import (
    LOG_THRESHOLD,
    Loss,
    as_labels,
    check_labels,
    normalization_mode,
    normalizer,
    with_gradient_of,
)
from prototxt_gen.schema.caffe_proto import LossParameter
from prototxt_gen.schema.message import Message, int32, string

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class InfogainLossParameter(Message, field="infogain_loss_param", number=116):
    source = string(1)
    axis = int32(2, 1)


def read_matrix(layer: Layer, classes: int) -> torch.Tensor:
    """Read the infogain matrix from the layer's `source`, a .binaryproto file, as classes×classes.

    Raises NetError if it has another number of elements.
    """
    import torch

    from prototxt_gen.caffemodel import read_binaryproto

    matrix = read_binaryproto(layer.get(InfogainLossParameter).source)
    if matrix.size != classes * classes:
        raise layer.error(
            f"its matrix is {show(matrix.shape)}; for {classes} classes it needs {classes * classes} elements"
        )
    return torch.from_numpy(matrix.reshape(classes, classes).copy())


class InfogainLoss(Loss):
    """Compute a softmax loss whose terms are weighted by row `label` of a matrix H; the identity gives SoftmaxWithLoss.

    Source: src/caffe/layers/infogain_loss_layer.cpp.
    Shape: scores N×C×…, labels N×…, optionally H with C² elements → scalar, softmax N×C×….
    Blobs: none; H is the third bottom or is read from `source`, a .binaryproto file.
    Differs: PyTorch has no such module. In older Caffe, such as the SSD fork, the first bottom is probabilities, not
        scores.
    """

    type = "InfogainLoss"
    params = (InfogainLossParameter, LossParameter)
    bottoms = Arity(2, 3)
    tops = Arity(0, 2)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        p = layer.get(InfogainLossParameter)
        axis = canonical_axis(layer, p.axis, bottoms[0])
        check_labels(layer, bottoms[0], bottoms[1], axis)
        if layer.get(LossParameter).has("normalize"):
            raise layer.error("normalize is not allowed; use normalization")
        if len(bottoms) == 2 and not p.has("source"):
            raise layer.error("it needs a matrix: the source of infogain_loss_param, or a third bottom")
        if len(bottoms) == 3 and math.prod(bottoms[2]) != bottoms[0][axis] ** 2:
            classes = bottoms[0][axis]
            raise layer.error(f"its matrix is {show(bottoms[2])}; for {classes} classes it needs {classes**2} elements")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        p, axis = layer.get(LossParameter), canonical_axis(layer, layer.get(InfogainLossParameter).axis, bottoms[0])
        mode, ignored = normalization_mode(p), p.ignore_label if p.has("ignore_label") else None
        stored = read_matrix(layer, bottoms[0][axis]) if len(bottoms) == 2 else None
        with_probabilities, floor = len(layer.tops) == 2, math.log(LOG_THRESHOLD)

        class InfogainLoss(nn.Module):
            matrix: Tensor | None

            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("matrix", stored, persistent=False)

            def forward(self, x: Tensor, label: Tensor, matrix: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
                infogain = self.matrix if matrix is None else matrix.detach()
                assert infogain is not None
                logs, label = x.log_softmax(axis).movedim(axis, -1).reshape(-1, x.shape[axis]), as_labels(label)
                counted = torch.ones_like(label) if ignored is None else (label != ignored).long()
                gains = infogain.reshape(logs.shape[1], -1)[label * counted] * counted[:, None]
                outer = math.prod(x.shape[:axis])
                total = -(gains * with_gradient_of(logs.clamp(min=floor), logs)).sum()
                loss = total / normalizer(mode, outer, len(logs) // outer, counted.sum())
                return (loss, x.detach().softmax(axis)) if with_probabilities else loss

        return InfogainLoss()

    examples = (
        Example("plain", ((3, 4), (3,), (1, 1, 4, 4)), draws=(normal, labels(4), normal), gradients=False),
        Example(
            "two tops, positions",
            ((2, 3, 2), (2, 2), (3, 3)),
            "loss_weight: 1 loss_weight: 0",
            2,
            draws=(normal, labels(3), normal),
            gradients=False,
        ),
        *(
            Example(
                f"ignore_label, {mode}",
                ((2, 3, 2), (2, 2), (3, 3)),
                f"loss_param {{ ignore_label: 1 normalization: {mode} }}",
                draws=(normal, literal([0, 1, 2, 1]), normal),
                gradients=False,
            )
            for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
        ),
    )
