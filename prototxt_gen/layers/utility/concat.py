"""Layer type Concat: blobs joined along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import axis_or_alias
from prototxt_gen.layers.base import Arity, LayerType, show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, int32, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ConcatParameter(Message, field="concat_param", number=104):
    axis = int32(2, 1)
    concat_dim = uint32(1, 1)


def concat_axis(layer: Layer, bottom: Shape) -> int:
    """Return the axis along which the bottoms are joined."""
    p = layer.get(ConcatParameter)
    new, old = (getattr(p, name) if p.has(name) else None for name in ("axis", "concat_dim"))
    return axis_or_alias(layer, new, old, "concat_dim", bottom)


class Concat(LayerType):
    """Join the bottoms along an axis (default: 1, the channels).

    Source: src/caffe/layers/concat_layer.cpp ConcatLayer::Reshape, Forward_cpu.
    Shape: the first bottom's shape, with the sum of the sizes along the axis; all other sizes must be equal.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "Concat"
    params = (ConcatParameter,)
    bottoms = Arity(1)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        axis = concat_axis(layer, bottoms[0])
        other_sizes = {(len(bottom), bottom[:axis], bottom[axis + 1 :]) for bottom in bottoms}
        if len(other_sizes) > 1:
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; only axis {axis} may differ")
        return [(*bottoms[0][:axis], sum(bottom[axis] for bottom in bottoms), *bottoms[0][axis + 1 :])]

    def shares_memory(self, layer: Layer) -> bool:
        return len(layer.bottoms) == 1

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        axis = concat_axis(layer, bottoms[0])

        class Join(nn.Module):
            def forward(self, *bottoms: Tensor) -> Tensor:
                return torch.cat(bottoms, axis)

        return Join()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Concat", *bottoms, axis=concat_axis(layer, g.shape(bottoms[0])))

    examples = (
        Example("channels", ((2, 3, 2, 4), (2, 1, 2, 4), (2, 2, 2, 4))),
        Example("batch", ((1, 3, 2), (2, 3, 2)), "concat_param { axis: 0 }"),
        Example("last axis", ((2, 3, 1, 4), (2, 3, 1, 2)), "concat_param { axis: -1 }"),
        Example("concat_dim", ((2, 3, 4, 1), (2, 3, 2, 1)), "concat_param { concat_dim: 2 }"),
        Example("one bottom", ((2, 3),)),
    )
