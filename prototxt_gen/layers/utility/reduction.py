"""Layer type Reduction: a sum or a mean over the last axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.schema.message import Message, enum, float32, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ReductionParameter(Message, field="reduction_param", number=136):
    operation = enum(1, "SUM", "ASUM", "SUMSQ", "MEAN", first=1)
    axis = int32(2)
    coeff = float32(3, 1.0)


_ONNX = {"SUM": "ReduceSum", "ASUM": "ReduceL1", "SUMSQ": "ReduceSumSquare", "MEAN": "ReduceMean"}


class Reduction(LayerType):
    """Compute the sum, absolute sum, sum of squares or mean over all axes from `axis` on, and multiply it by `coeff`.

    Source: src/caffe/layers/reduction_layer.cpp ReductionLayer::Reshape, Forward_cpu.
    Shape: the axes of the bottom before `axis`; a scalar for axis 0.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX, which need a separate multiplication for coeff.
    """

    type = "Reduction"
    params = (ReductionParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [bottoms[0][: canonical_axis(layer, layer.get(ReductionParameter).axis, bottoms[0])]]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        p = layer.get(ReductionParameter)
        return _module(p.operation, canonical_axis(layer, p.axis, bottoms[0]), p.coeff)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, shape = layer.get(ReductionParameter), g.shape(bottoms[0])
        axes = range(canonical_axis(layer, p.axis, shape), len(shape))
        top = g.op(_ONNX[p.operation], bottoms[0], g.const(list(axes), "axes"), keepdims=0)
        return top if p.coeff == 1 else g.op("Mul", top, g.const(p.coeff, "coeff"))

    examples = (
        Example("sum of all", ((2, 3, 4),)),
        Example("sum with coeff", ((2, 3, 4),), "reduction_param { axis: 1 coeff: -0.5 }"),
        Example("absolute sum", ((2, 3, 4),), "reduction_param { operation: ASUM axis: 2 coeff: 2 }"),
        Example(
            "absolute sum with zeros",
            ((2, 3),),
            "reduction_param { operation: ASUM axis: 1 }",
            draws=(literal([0, -1, 2, 0, 0, -3]),),
        ),
        Example("squares", ((2, 3, 4),), "reduction_param { operation: SUMSQ axis: -1 coeff: 0.5 }"),
        Example("mean", ((2, 3, 4, 2),), "reduction_param { operation: MEAN axis: 1 }"),
        Example("mean with coeff", ((2, 3, 4),), "reduction_param { operation: MEAN axis: 1 coeff: -1 }"),
        Example("mean of all", ((5,),), "reduction_param { operation: MEAN }"),
    )


def _module(operation: str, axis: int, coeff: float) -> nn.Module:
    from torch import nn

    class Reduced(nn.Module):
        def forward(self, bottom: Tensor) -> Tensor:
            flat = bottom.flatten(axis)
            if operation == "MEAN":
                return flat.mean(-1) * coeff
            terms = flat.abs() if operation == "ASUM" else flat.square() if operation == "SUMSQ" else flat
            return terms.sum(-1) * coeff

    return Reduced()
