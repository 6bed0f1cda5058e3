"""Layer type Parameter: a learned blob as a blob of the net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import BlobSpec, LayerType, exactly
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import BlobShape, FillerParameter
from prototxt_gen.schema.message import Message, message

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class ParameterParameter(Message, field="parameter_param", number=145):
    """`blob_filler` is a field of happynear/caffe-windows; BVLC Caffe fills with zeros."""

    shape = message(1, BlobShape)
    blob_filler = message(2, FillerParameter)


class Parameter(LayerType):
    """Return a learned blob as the top.

    Source: include/caffe/layers/parameter_layer.hpp ParameterLayer::LayerSetUp.
    Shape: the shape in parameter_param.
    Blobs: weight, with that shape.
    Differs: no difference from PyTorch or ONNX. The blob's gradient is the top's, so it is not summed over the batches
        of iter_size.
    """

    type = "Parameter"
    params = (ParameterParameter,)
    bottoms = exactly(0)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [layer.get(ParameterParameter).shape.dim]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(ParameterParameter)
        return {"weight": BlobSpec(p.shape.dim, p.blob_filler)}

    def shares_memory(self, layer: Layer) -> bool:
        return True

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        shape = layer.get(ParameterParameter).shape.dim

        class Learned(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(shape))

            def forward(self) -> Tensor:
                return self.weight

        return Learned()

    def overwritten(self, layer: Layer, bottoms: Sequence[Shape]) -> tuple[str, ...]:
        return ("weight",)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Identity", blobs["weight"])

    examples = (
        Example("matrix", (), "parameter_param { shape { dim: 3 dim: 2 } }"),
        Example("vector", (), "parameter_param { shape { dim: 4 } }"),
    )
