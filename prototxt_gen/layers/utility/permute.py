"""R"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.utility._axis_order import ReorderedAxes
from prototxt_gen.schema.message import Message, repeated, uint32

if TYPE_CHECKING:
    pass


class PermuteParameter(Message, field="permute_param", number=202):
    """Number 202 in weiliu89/caffe, 224 in happynear/caffe-windows."""

    order = repeated(uint32(1))


class Permute(ReorderedAxes):
    """The axes in the given order; those not named follow in their own.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/permute_layer.cpp PermuteLayer::LayerSetUp.
    Shape: N×C×H×W with order 0, 2, 3, 1 → N×H×W×C.
    Blobs: none.
    Differs: from PyTorch, ONNX: not at all; there all axes must be named.
    """

    type = "Permute"
    params = (PermuteParameter,)

    def order(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        named = layer.get(PermuteParameter).order
        if len(set(named)) != len(named):
            raise layer.error(f"its order {', '.join(map(str, named))} names an axis twice")
        if any(axis >= len(bottom) for axis in named):
            raise layer.error(f"its order {', '.join(map(str, named))} names an axis its bottom {show(bottom)} lacks")
        return (*named, *(axis for axis in range(len(bottom)) if axis not in named))

    def shares_memory(self, layer: Layer) -> bool:
        """Where it leaves the axes as they are. Source: PermuteLayer::Forward_cpu."""
        named = layer.get(PermuteParameter).order
        return list(named) == list(range(len(named)))

    examples = (
        Example("channels last", ((2, 3, 4, 5),), "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
        Example("rest in order", ((2, 3, 4, 5),), "permute_param { order: 2 }"),
        Example("nothing to do", ((2, 3),)),
        Example("three axes", ((2, 3, 4),), "permute_param { order: 1 order: 0 order: 2 }"),
    )
