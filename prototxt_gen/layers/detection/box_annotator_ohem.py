"""Layer type BoxAnnotatorOHEM (R-FCN): the selection of hard examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly, show_all
from prototxt_gen.layers.example import Example, labels, literal, normal, probabilities
from prototxt_gen.layers.loss_base import legacy_size
from prototxt_gen.schema.message import Message, int32, uint32

if TYPE_CHECKING:
    from torch import nn


class BoxAnnotatorOHEMParameter(Message, field="box_annotator_ohem_param", number=152):
    roi_per_img = uint32(1)
    ignore_label = int32(2, -1)


class BoxAnnotatorOHEM(LayerType):
    """Keep the labels and box weights of the regions with the greatest loss in each image; the others are ignored.

    Source: intel/caffe src/caffe/layers/box_annotator_ohem_layer.cpp (R-FCN's).
    Shape: regions R×5, losses R, labels R, weights R×B → labels R, weights R×B; all may also have a height and a width.
    Blobs: none.
    Differs: PyTorch has no such module. Of equal losses the first are kept; Caffe's choice depends on the C++ library.
    """

    type = "BoxAnnotatorOHEM"
    params = (BoxAnnotatorOHEMParameter,)
    bottoms = exactly(4)
    tops = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if layer.get(BoxAnnotatorOHEMParameter).roi_per_img < 1:
            raise layer.error("it needs a roi_per_img of at least 1")
        shapes = [tuple(legacy_size(layer, bottom, axis) for axis in range(4)) for bottom in bottoms]
        count, channels, height, width = shapes[0]
        expected = [(count, c, height, width) for c in (5, 1, 1, shapes[3][1])]
        if shapes != expected or channels != 5:
            raise layer.error(
                f"its bottoms are {show_all(bottoms)}; it needs R×5, R×1, R×1 and R×B with equal heights and widths"
            )
        return [expected[1], expected[3]]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import Tensor, nn

        p = layer.get(BoxAnnotatorOHEMParameter)

        class BoxAnnotatorOHEM(nn.Module):
            @torch.no_grad()
            def forward(self, regions: Tensor, loss: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
                images, kept = regions.reshape(len(loss), 5, -1)[:, 0].reshape(-1).long(), loss.new_zeros(loss.numel())
                order = loss.reshape(-1).argsort(descending=True, stable=True)
                for image in sorted(set(images.tolist())):
                    kept[order[images[order] == image][: p.roi_per_img]] = 1
                shape = (*loss.shape, 1, 1, 1)[:4]
                chosen = kept.reshape(len(loss), 1, *shape[2:]) > 0
                labels = torch.where(chosen, label.reshape(chosen.shape), float(p.ignore_label))
                return labels, weight.reshape(len(loss), -1, *shape[2:]) * chosen

        return BoxAnnotatorOHEM()

    examples = (
        Example(
            "two images",
            ((5, 5), (5, 1, 1, 1), (5, 1), (5, 8, 1, 1)),
            "box_annotator_ohem_param { roi_per_img: 2 }",
            2,
            draws=(literal([[i, 0, 0, 4, 4] for i in (0, 1, 0, 0, 1)]), probabilities, labels(3), normal),
            gradients=False,
        ),
    )
