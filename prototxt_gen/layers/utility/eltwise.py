"""Layer type Eltwise: sum, product or maximum of blobs of equal shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import is_in_place
from prototxt_gen.layers.base import ONE, Arity, LayerType, show_all
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.schema.message import Message, boolean, enum, float32, repeated

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class EltwiseParameter(Message, field="eltwise_param", number=110):
    operation = enum(1, "PROD", "SUM", "MAX", default="SUM")
    coeff = repeated(float32(2))
    stable_prod_grad = boolean(3, True)


def coefficients(layer: Layer) -> tuple[float, ...]:
    """Return one coefficient for each bottom."""
    return layer.get(EltwiseParameter).coeff or (1.0,) * len(layer.bottoms)


def _operation(layer: Layer) -> str:
    """Return the operation. Raises UnsupportedError if the layer is in place and Caffe would clear its bottom first."""
    operation = layer.get(EltwiseParameter).operation
    if operation != "PROD" and is_in_place(layer):
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): in place, Caffe's {operation} clears the bottom before it reads it; "
            "give its top another name"
        )
    return operation


class Eltwise(LayerType):
    """Compute the sum (with a coefficient for each bottom), the product or the maximum, element by element.

    Source: src/caffe/layers/eltwise_layer.cpp EltwiseLayer::Forward_cpu, Backward_cpu.
    Shape: all bottoms and the top have one shape; there is no broadcasting.
    Blobs: none.
    Differs: where several bottoms are equal, the gradient of the maximum goes to one of them (of the first two to the
        second, otherwise to the first); PyTorch divides it among them. With stable_prod_grad false, Caffe divides the
        product by each bottom; this gives the same gradient except at zeros, where it is NaN in Caffe but not here.
        Caffe skips a bottom with coeff 0; here infinity and NaN times 0 are NaN.
    """

    type = "Eltwise"
    params = (EltwiseParameter,)
    bottoms = Arity(2)
    fork_bottoms = ONE  # lmb-freiburg/flownet2
    tops = ONE

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(EltwiseParameter)
        if p.coeff and len(p.coeff) != len(bottoms):
            raise layer.error(f"it needs one coeff for each of its {len(bottoms)} bottoms, not {len(p.coeff)}")
        if p.coeff and p.operation == "PROD":
            raise layer.error("coeff is allowed with SUM, not with PROD")
        if any(bottom != bottoms[0] for bottom in bottoms):
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; {p.operation} needs equal shapes")
        return [bottoms[0]]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        operation = _operation(layer)
        if operation == "SUM":
            return _sum_module(coefficients(layer))
        return _product_module() if operation == "PROD" else _maximum_module()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        operation = _operation(layer)
        if operation == "MAX":
            return g.op("Max", *bottoms)
        if operation == "PROD":
            return _chain(g, "Mul", bottoms)
        factors = zip(bottoms, coefficients(layer), strict=True)
        return _chain(g, "Add", [b if c == 1 else g.op("Mul", b, g.const(c, "coeff")) for b, c in factors])

    examples = (
        Example("sum", ((2, 3, 4, 5), (2, 3, 4, 5))),
        Example("sum with coeff", ((2, 3), (2, 3), (2, 3)), "eltwise_param { coeff: 0.5 coeff: -2 coeff: 1 }"),
        Example("difference", ((2, 3, 1, 2), (2, 3, 1, 2)), "eltwise_param { operation: SUM coeff: 1 coeff: -1 }"),
        Example("product", ((2, 3, 2, 2), (2, 3, 2, 2)), "eltwise_param { operation: PROD }"),
        Example("product of three", ((2, 3), (2, 3), (2, 3)), "eltwise_param { operation: PROD }"),
        Example(
            "product, gradient by division",
            ((2, 3), (2, 3), (2, 3)),
            "eltwise_param { operation: PROD stable_prod_grad: false }",
        ),
        Example(
            "product in place", ((2, 3), (2, 3)), "eltwise_param { operation: PROD }", gradients=False, in_place=True
        ),
        Example("maximum", ((2, 3, 4), (2, 3, 4)), "eltwise_param { operation: MAX }"),
        Example("maximum of three", ((5, 7), (5, 7), (5, 7)), "eltwise_param { operation: MAX }"),
        Example(
            "maximum with ties",
            ((6,), (6,), (6,)),
            "eltwise_param { operation: MAX }",
            draws=(literal([0, 1, 2, 0, 3, 1]), literal([0, 1, 1, 0, 1, 3]), literal([0, 0, 2, -1, 3, 3])),
        ),
    )


def _chain(g: OnnxGraph, op: str, values: Sequence[str]) -> str:
    """Write a two-input operator over all values, from left to right as in Caffe."""
    first, *others = values
    for other in others:
        first = g.op(op, first, other)
    return first


def _sum_module(factors: Sequence[float]) -> nn.Module:
    from torch import nn

    class Sum(nn.Module):
        def forward(self, *bottoms: Tensor) -> Tensor:
            scaled = (b if c == 1 else c * b for b, c in zip(bottoms, factors, strict=True))
            total = next(scaled)
            for other in scaled:
                total = total + other
            return total

    return Sum()


def _product_module() -> nn.Module:
    from torch import nn

    class Product(nn.Module):
        def forward(self, first: Tensor, *others: Tensor) -> Tensor:
            for other in others:
                first = first * other
            return first

    return Product()


def _maximum_module() -> nn.Module:
    import torch
    from torch import nn

    class Maximum(nn.Module):
        def forward(self, first: Tensor, second: Tensor, *others: Tensor) -> Tensor:
            largest = torch.where(first > second, first, second)
            for other in others:
                largest = torch.where(other > largest, other, largest)
            return largest

    return Maximum()
