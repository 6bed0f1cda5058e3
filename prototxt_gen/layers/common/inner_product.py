"""Layer type InnerProduct: a fully connected layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical_axis, refuse_wrong_in_place
from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision.convolution import module_with_weight
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, boolean, int32, message, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class InnerProductParameter(Message, field="inner_product_param", number=117):
    num_output = uint32(1)
    bias_term = boolean(2, True)
    weight_filler = message(3, FillerParameter)
    bias_filler = message(4, FillerParameter)
    axis = int32(5, 1)
    transpose = boolean(6)


class InnerProduct(LayerType):
    """Multiply the flattened axes from `axis` on by a weight matrix, and add a bias.

    Source: src/caffe/layers/inner_product_layer.cpp InnerProductLayer.
    Shape: a×…×K → a×…×num_output: the axes from `axis` on, with K elements, become one axis.
    Blobs: weight num_output×K, or K×num_output with `transpose`; bias num_output.
    Differs: nn.Linear multiplies the last axis only, so an nn.Flatten comes before it.
    """

    type = "InnerProduct"
    params = (InnerProductParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,) = bottoms
        refuse_wrong_in_place(layer)
        p = layer.get(InnerProductParameter)
        if p.num_output < 1:
            raise layer.error("num_output must be at least 1")
        return [(*bottom[: canonical_axis(layer, p.axis, bottom)], p.num_output)]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(InnerProductParameter)
        inputs = math.prod(bottoms[0][canonical_axis(layer, p.axis, bottoms[0]) :])
        shape = (inputs, p.num_output) if p.transpose else (p.num_output, inputs)
        weight = {"weight": BlobSpec(shape, p.weight_filler)}
        return weight | ({"bias": BlobSpec((p.num_output,), p.bias_filler)} if p.bias_term else {})

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        axis = canonical_axis(layer, layer.get(InnerProductParameter).axis, bottoms[0])
        return math.prod(tops[0]) * math.prod(bottoms[0][axis:])

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        (bottom,) = bottoms
        p = layer.get(InnerProductParameter)
        axis = canonical_axis(layer, p.axis, bottom)
        linear = nn.Linear(math.prod(bottom[axis:]), p.num_output, p.bias_term)
        flatten = [nn.Flatten(axis)] if axis < len(bottom) - 1 else []

        class Transposed(nn.Sequential):
            """Holds an nn.Linear whose Caffe blob is the transposed weight."""

            transposed = True

        if p.transpose:
            return Transposed(*flatten, linear)
        return nn.Sequential(*flatten, linear) if flatten else linear

    def load(self, module: nn.Module, blobs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        super().load(module_with_weight(module), _to_linear_weight(module, blobs))

    def dump(self, module: nn.Module, roles: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        return _to_linear_weight(module, super().dump(module_with_weight(module), roles))

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        (x,) = bottoms
        shape, (weight, *bias) = g.shape(x), (g.const(blob, role) for role, blob in blobs.items())
        p = layer.get(InnerProductParameter)
        axis = canonical_axis(layer, p.axis, shape)
        if axis == 1:
            flat = x if len(shape) == 2 else g.op("Flatten", x)
            return g.op("Gemm", flat, weight, *bias, transB=int(not p.transpose))
        if axis < len(shape) - 1:
            x = g.op("Reshape", x, g.const([0] * axis + [-1], "shape"))
        product = g.op("MatMul", x, weight if p.transpose else g.op("Transpose", weight, perm=(1, 0)))
        return g.op("Add", product, *bias) if bias else product

    examples = (
        Example("image", ((2, 3, 4, 2),), "inner_product_param { num_output: 5 }"),
        Example("vector", ((3, 6),), "inner_product_param { num_output: 4 bias_term: false }"),
        Example("transposed", ((2, 3, 2, 2),), "inner_product_param { num_output: 5 transpose: true }"),
        Example("later axis", ((2, 3, 4, 2),), "inner_product_param { num_output: 5 axis: 2 }"),
        Example("last axis", ((2, 3, 4),), "inner_product_param { num_output: 5 axis: -1 }"),
        Example(
            "later axis, transposed, no bias",
            ((2, 3, 4, 2),),
            "inner_product_param { num_output: 5 axis: 2 transpose: true bias_term: false }",
        ),
        Example("first axis", ((2, 3),), "inner_product_param { num_output: 4 axis: 0 }"),
    )


def _to_linear_weight(module: nn.Module, blobs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the blobs with the weight transposed if the module is a `Transposed`. The function is its own inverse."""
    transposed = getattr(module, "transposed", False)
    return {role: blob.T if transposed and role == "weight" else blob for role, blob in blobs.items()}
