"""Layer type Embed: a lookup of rows in a weight matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.layers.example import Example, labels
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, boolean, message, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class EmbedParameter(Message, field="embed_param", number=137):
    num_output = uint32(1)
    input_dim = uint32(2)
    bias_term = boolean(3, True)
    weight_filler = message(4, FillerParameter)
    bias_filler = message(5, FillerParameter)


class Embed(LayerType):
    """Look up a row of the weight for each index in the bottom, and add a bias.

    Source: src/caffe/layers/embed_layer.cpp EmbedLayer::Forward_cpu.
    Shape: a×… → a×…×num_output.
    Blobs: weight input_dim×num_output, bias num_output.
    Differs: indices are floats, truncated to whole numbers; torch.nn.Embedding and ONNX Gather have no bias.
    """

    type = "Embed"
    params = (EmbedParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(EmbedParameter)
        if p.num_output < 1 or p.input_dim < 1:
            raise layer.error("num_output and input_dim must be at least 1")
        return [(*bottoms[0], p.num_output)]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(EmbedParameter)
        weight = {"weight": BlobSpec((p.input_dim, p.num_output), p.weight_filler)}
        return weight | ({"bias": BlobSpec((p.num_output,), p.bias_filler)} if p.bias_term else {})

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        p = layer.get(EmbedParameter)

        class Embedding(nn.Embedding):
            def __init__(self) -> None:
                super().__init__(p.input_dim, p.num_output)
                self.bias = nn.Parameter(torch.zeros(p.num_output)) if p.bias_term else None

            def forward(self, input: Tensor) -> Tensor:
                rows = super().forward(input.long())
                return rows if self.bias is None else rows + self.bias

        return Embedding()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        weight, *bias = (g.const(blob, role) for role, blob in blobs.items())
        rows = g.op("Gather", weight, g.op("Cast", bottoms[0], to=7))
        return g.op("Add", rows, *bias) if bias else rows

    examples = (
        Example(
            "with bias",
            ((4,),),
            "embed_param { num_output: 3 input_dim: 5 }",
            draws=(labels(5),),
            gradients=False,
        ),
        Example(
            "several axes, no bias",
            ((2, 3, 1),),
            "embed_param { num_output: 4 input_dim: 6 bias_term: false }",
            draws=(labels(6),),
            gradients=False,
        ),
    )
