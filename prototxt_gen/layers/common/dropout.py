"""Layer type Dropout: random zeros in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.neuron import Neuron
from prototxt_gen.schema.message import Message, boolean, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class DropoutParameter(Message, field="dropout_param", number=108):
    dropout_ratio = float32(1, 0.5)
    scale_train = boolean(2, True)
    """Field of rbgirshick/caffe-fast-rcnn and intel/caffe: false scales in the TEST phase instead of in training."""


class Dropout(Neuron):
    """Set elements to 0 at random in training and scale the others up; in the TEST phase return the bottom.

    In training an element is 0 with probability dropout_ratio, else it is divided by 1 - dropout_ratio. With
    scale_train false, elements are not scaled in training but multiplied by 1 - dropout_ratio in the TEST phase.

    Source: src/caffe/layers/dropout_layer.cpp DropoutLayer::Forward_cpu; caffe-fast-rcnn's for scale_train.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX, except that they have no scale_train: false.
    """

    type = "Dropout"
    params = (DropoutParameter,)

    def check(self, layer: Layer) -> None:
        ratio = layer.get(DropoutParameter).dropout_ratio
        if not 0 <= ratio < 1:
            raise layer.error(f"dropout_ratio is {ratio:g}; it must be at least 0 and less than 1")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(DropoutParameter)
        if p.scale_train:
            return nn.Dropout(p.dropout_ratio)

        class ScaledInTest(nn.Dropout):
            def forward(self, input: Tensor) -> Tensor:
                return super().forward(input) * (1 - self.p)

        return ScaledInTest(p.dropout_ratio)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p = layer.get(DropoutParameter)
        if p.scale_train:
            return g.op("Identity", bottoms[0])
        return g.op("Mul", bottoms[0], g.const(1 - p.dropout_ratio, "keep"))

    examples = (
        Example("plain", ((2, 3, 4),)),
        Example("ratio, in place", ((2, 5),), "dropout_param { dropout_ratio: 0.9 }", in_place=True),
    )
