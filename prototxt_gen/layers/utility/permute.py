"""Layer type Permute (SSD): axes in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.utility._axis_order import ReorderedAxes
from prototxt_gen.schema.message import Message, repeated, uint32

if TYPE_CHECKING:
    pass


class PermuteParameter(Message, field="permute_param", number=202):
    """The number is 202 in weiliu89/caffe and 224 in happynear/caffe-windows."""

    order = repeated(uint32(1))


class Permute(ReorderedAxes):
    """Put the axes into the given order; axes that are not given follow in their original order.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/permute_layer.cpp PermuteLayer::LayerSetUp.
    Shape: N×C×H×W with order 0, 2, 3, 1 → N×H×W×C.
    Blobs: none.
    Differs: PyTorch and ONNX require all axes to be given; otherwise no difference.
    """

    type = "Permute"
    params = (PermuteParameter,)

    def order(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        order = layer.get(PermuteParameter).order
        text = ", ".join(map(str, order))
        if len(set(order)) != len(order):
            raise layer.error(f"its order {text} contains an axis twice")
        if any(axis >= len(bottom) for axis in order):
            raise layer.error(f"its order {text} contains an axis that its bottom {show(bottom)} does not have")
        return (*order, *(axis for axis in range(len(bottom)) if axis not in order))

    def shares_memory(self, layer: Layer) -> bool:
        """Whether the order does not change. Source: PermuteLayer::Forward_cpu."""
        order = layer.get(PermuteParameter).order
        return list(order) == list(range(len(order)))

    examples = (
        Example("channels last", ((2, 3, 4, 5),), "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
        Example("rest in order", ((2, 3, 4, 5),), "permute_param { order: 2 }"),
        Example("nothing to do", ((2, 3),)),
        Example("three axes", ((2, 3, 4),), "permute_param { order: 1 order: 0 order: 2 }"),
    )
