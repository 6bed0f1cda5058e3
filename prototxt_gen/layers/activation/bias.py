"""Layer type Bias: addition of a learned blob or of a second bottom, broadcast over the other axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.activation.scale import (
    append_axes,
    append_axes_onnx,
    has_number_per_channel,
    learned_shape,
    trailing_axes,
)
from prototxt_gen.layers.base import Arity, BlobSpec, LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, int32, message

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class BiasParameter(Message, field="bias_param", number=141):
    axis = int32(1, 1)
    num_axes = int32(2, 1)
    filler = message(3, FillerParameter)


class Bias(LayerType):
    """Add a learned blob, or the second bottom, to the axes of the first bottom that start at `axis`.

    Source: src/caffe/layers/bias_layer.cpp BiasLayer::LayerSetUp, Reshape, Forward_cpu.
    Shape: the top has the first bottom's shape. The second bottom has the shape of the axes that it covers, or () for a
        scalar.
    Blobs: bias, with the shape of the `num_axes` axes from `axis` on; none if there is a second bottom.
    Differs: PyTorch and ONNX have no such layer; it is written as an addition with broadcasting.
    """

    type = "Bias"
    params = (BiasParameter,)
    bottoms = Arity(1, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        self.trailing(layer, bottoms)
        return [bottoms[0]]

    def covered_shape(self, layer: Layer, bottoms: Sequence[Shape]) -> Shape:
        """Return the shape of the bias: the axes of the first bottom that it covers."""
        p = layer.get(BiasParameter)
        return bottoms[1] if len(bottoms) > 1 else learned_shape(layer, p.axis, p.num_axes, bottoms[0])

    def trailing(self, layer: Layer, bottoms: Sequence[Shape]) -> int:
        """Return the number of axes of the first bottom that follow the covered ones."""
        return trailing_axes(layer, layer.get(BiasParameter).axis, bottoms[0], self.covered_shape(layer, bottoms))

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        if len(bottoms) > 1:
            return {}
        return {"bias": BlobSpec(self.covered_shape(layer, bottoms), layer.get(BiasParameter).filler)}

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        trailing, shapes = self.trailing(layer, bottoms), self.blobs(layer, bottoms)

        class Biased(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bias = nn.Parameter(torch.zeros(shapes["bias"].shape)) if shapes else None

            def forward(self, bottom: Tensor, bias: Tensor | None = None) -> Tensor:
                top: Tensor = bottom + append_axes(self.bias if bias is None else bias, trailing)
                return top

        return Biased()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        trailing = self.trailing(layer, [g.shape(bottom) for bottom in bottoms])
        bias = append_axes_onnx(g, bottoms[1], trailing) if len(bottoms) > 1 else append_axes(blobs["bias"], trailing)
        return g.op("Add", bottoms[0], bias)

    def affine(
        self, layer: Layer, blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        import numpy as np

        bias = blobs.get("bias")
        if bias is None or not has_number_per_channel(layer.get(BiasParameter).axis, bias):
            return None
        return np.ones_like(bias), bias

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("in place", ((2, 3, 4),), "bias_param { filler { value: 2 } }", in_place=True),
        Example("several axes", ((2, 3, 4, 2),), "bias_param { axis: 1 num_axes: 2 }"),
        Example("all axes to the end", ((2, 3, 4),), "bias_param { axis: -2 num_axes: -1 }"),
        Example("a scalar", ((2, 3, 4),), "bias_param { num_axes: 0 }"),
        Example("two bottoms", ((2, 3, 4, 4), (3,))),
        Example("two bottoms, axis 0", ((2, 3, 4, 4), (2, 3)), "bias_param { axis: 0 }"),
        Example("two bottoms, a scalar", ((2, 3, 4), ())),
        Example("two bottoms, in place", ((2, 3), (3,)), in_place=True),
    )
