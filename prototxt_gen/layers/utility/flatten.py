"""Layer type Flatten: several axes joined to one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import canonical_axis, refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.utility.reshape import NewAxes, reshape_module, reshape_onnx
from prototxt_gen.schema.message import Message, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class FlattenParameter(Message, field="flatten_param", number=135):
    axis = int32(1, 1)
    end_axis = int32(2, -1)


def flattened_axes(layer: Layer, bottom: Shape) -> NewAxes:
    """Return the change of axes that the layer makes. Raises NetError if end_axis comes before axis.

    Source: src/caffe/layers/flatten_layer.cpp FlattenLayer::Reshape.
    """
    p = layer.get(FlattenParameter)
    start, end = canonical_axis(layer, p.axis, bottom), canonical_axis(layer, p.end_axis, bottom) + 1
    if start > end:
        raise layer.error(f"axis {p.axis} comes after end_axis {p.end_axis} in its bottom {show(bottom)}")
    return NewAxes(start, end, (1,) if start == end else (-1,))


class Flatten(LayerType):
    """Join the axes from `axis` to `end_axis` (included) to one axis.

    Source: src/caffe/layers/flatten_layer.cpp FlattenLayer::Reshape.
    Shape: N×C×H×W → N×(C·H·W) by default. If end_axis is axis - 1, an axis of size 1 is inserted.
    Blobs: none.
    Differs: PyTorch has no such insertion. ONNX's Flatten always returns two axes.
    """

    type = "Flatten"
    params = (FlattenParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        refuse_in_place(layer)
        start, end, _ = flattened_axes(layer, bottoms[0])
        return [(*bottoms[0][:start], math.prod(bottoms[0][start:end]), *bottoms[0][end:])]

    def shares_memory(self, layer: Layer) -> bool:
        return True

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        new = flattened_axes(layer, bottoms[0])
        return reshape_module(new) if new.start == new.end else nn.Flatten(new.start, new.end - 1)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        new = flattened_axes(layer, g.shape(bottoms[0]))
        if new == NewAxes(1, len(g.shape(bottoms[0])), (-1,)):
            return g.op("Flatten", bottoms[0], axis=1)
        return reshape_onnx(g, bottoms[0], new)

    examples = (
        Example("plain", ((2, 3, 2, 2),)),
        Example("from axis 2", ((2, 3, 2, 2),), "flatten_param { axis: 2 }"),
        Example("in the middle", ((2, 3, 2, 2),), "flatten_param { axis: 1 end_axis: 2 }"),
        Example("all", ((2, 3, 2),), "flatten_param { axis: 0 }"),
        Example("negative axes", ((2, 3, 2, 2),), "flatten_param { axis: -3 end_axis: -2 }"),
        Example("an axis put in", ((2, 3, 2),), "flatten_param { axis: 1 end_axis: 0 }"),
        Example("two axes already", ((2, 3),)),
    )
