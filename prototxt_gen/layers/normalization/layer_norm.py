"""Layer type LayerNorm (synopsys-caffe): normalisation of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, boolean, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class LayerNormParameter(Message, field="layer_norm_param", number=277):
    eps = float32(1, 1e-5)
    elementwise_affine = boolean(2, True)


class LayerNorm(LayerType):
    """Normalise each image: subtract its mean, divide by √(variance + eps), multiply by a weight and add a bias.

    Source: synopsys-caffe src/caffe/layers/layer_norm_layer.cpp LayerNormLayer::LayerSetUp, Forward_cpu.
    Shape: the top has the bottom's shape, N×….
    Blobs: weight and bias, with the shape of one image, unless elementwise_affine is false.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "LayerNorm"
    params = (LayerNormParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) < 2:
            raise layer.error(f"its bottom {show(bottoms[0])} has no axis after the batch axis")
        return [bottoms[0]]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        if not layer.get(LayerNormParameter).elementwise_affine:
            return {}
        shape = bottoms[0][1:]
        return {"weight": BlobSpec(shape, FillerParameter(value=1.0)), "bias": BlobSpec(shape)}

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(LayerNormParameter)
        return nn.LayerNorm(bottoms[0][1:], p.eps, p.elementwise_affine)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        import numpy as np

        shape = g.shape(bottoms[0])[1:]
        affine = list(blobs.values()) or [np.ones(shape, "float32"), np.zeros(shape, "float32")]
        return g.op("LayerNormalization", bottoms[0], *affine, axis=1, epsilon=layer.get(LayerNormParameter).eps)

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("two axes", ((3, 5),), "layer_norm_param { eps: 0.1 }"),
        Example("not affine", ((2, 3, 4),), "layer_norm_param { elementwise_affine: false }"),
    )
