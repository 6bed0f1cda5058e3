"""Layer type PReLU: a ReLU with a learned slope for negative values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import BlobSpec
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.neuron import Neuron
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, boolean, message

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

DEFAULT_FILLER = FillerParameter(value=0.25)


class PReLUParameter(Message, field="prelu_param", number=131):
    filler = message(1, FillerParameter)
    channel_shared = boolean(2)


class PReLU(Neuron):
    """Compute max(x, 0) + slope · min(x, 0), with a learned slope for each channel or one slope for all.

    Source: src/caffe/layers/prelu_layer.cpp PReLULayer::LayerSetUp, Forward_cpu.
    Shape: the top has the bottom's shape, of two to four axes.
    Blobs: weight C, or a scalar if channel_shared is true. Default filler: constant 0.25.
    Differs: no difference from PyTorch or ONNX.
    """

    type = "PReLU"
    params = (PReLUParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not 2 <= len(bottoms[0]) <= 4:
            raise layer.error(f"its bottom {show(bottoms[0])} has {len(bottoms[0])} axes; it needs two to four")
        return [bottoms[0]]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(PReLUParameter)
        filler = p.filler if p.has("filler") else DEFAULT_FILLER
        return {"weight": BlobSpec(() if p.channel_shared else (bottoms[0][1],), filler)}

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        return nn.PReLU(1 if layer.get(PReLUParameter).channel_shared else bottoms[0][1])

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        rank = len(g.shape(bottoms[0]))
        return g.op("PRelu", bottoms[0], blobs["weight"].reshape(-1, *[1] * (rank - 2)))

    examples = (
        Example("each channel", ((2, 3, 4, 4),)),
        Example("shared", ((2, 3, 4, 4),), "prelu_param { channel_shared: true }"),
        Example("two axes", ((3, 5),)),
        Example("three axes, in place", ((2, 3, 4),), in_place=True),
        Example("filler", ((1, 3, 2, 2),), "prelu_param { filler { type: 'gaussian' std: 0.1 } }"),
        Example("shared, two axes, in place", ((2, 3),), "prelu_param { channel_shared: true }", in_place=True),
    )
