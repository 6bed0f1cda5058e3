"""Permute (SSD) and Transpose (the OCR forks): the axes in another order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place, refuse_overwriting
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, int32, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class PermuteParameter(Message, field="permute_param", number=202):
    """Number 202 in weiliu89/caffe, 224 in happynear/caffe-windows."""

    order = repeated(uint32(1))


class TransposeParameter(Message, field="transpose_param", number=8266710):
    """Of senlinuc/caffe_ocr."""

    dim = repeated(int32(1))


class _Reordered(LayerType):
    """What both share once the order is known."""

    def order(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        """Return, for each axis of the top, the bottom's axis it comes from."""
        raise NotImplementedError

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        order = self.order(layer, bottoms[0])
        if order != tuple(range(len(order))):
            refuse_overwriting(layer)
        return [tuple(bottoms[0][axis] for axis in order)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        order = self.order(layer, bottoms[0])

        class Permuted(nn.Module):
            def forward(self, bottom: Tensor) -> Tensor:
                return bottom.permute(order)

        return Permuted()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Transpose", bottoms[0], perm=self.order(layer, g.shape(bottoms[0])))


class Permute(_Reordered):
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


class Transpose(_Reordered):
    """The axes in the given order, all of them named.

    Source: senlinuc/caffe_ocr src/caffe/layers/transpose_layer.cpp TransposeLayer::Reshape.
    Shape: axis i of the top is axis dim(i) of the bottom.
    Blobs: none.
    Differs: from PyTorch, ONNX: not at all.
    """

    type = "Transpose"
    params = (TransposeParameter,)

    def order(self, layer: Layer, bottom: Shape) -> tuple[int, ...]:
        refuse_in_place(layer)
        dims = layer.get(TransposeParameter).dim
        if sorted(dims) != list(range(len(bottom))) or not bottom:
            raise layer.error(f"dim {', '.join(map(str, dims))} must name each axis of its bottom {show(bottom)} once")
        return dims

    examples = (Example("time first", ((2, 3, 1, 4),), "transpose_param { dim: 3 dim: 2 dim: 0 dim: 1 }"),)
