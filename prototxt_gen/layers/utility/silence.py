"""Layer type Silence: marks blobs as used, so that Caffe does not print them as outputs of the net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Silence(LayerType):
    """Accept any blobs and return none.

    Source: src/caffe/layers/silence_layer.cpp SilenceLayer::Backward_cpu (the gradient is zero).
    Shape: no tops.
    Blobs: none.
    Differs: in PyTorch and ONNX it computes nothing.
    """

    type = "Silence"
    bottoms = Arity(1)
    tops = exactly(0)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return []

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        class Nothing(nn.Module):
            def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
                return ()

        return Nothing()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return []
