"""Layer type MaxUnPool (brocolli-caffe): unpooling by a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.layers.example import Example, literal, normal
from prototxt_gen.layers.vision._unpooling import check_mask, unpool_module, unpool_onnx
from prototxt_gen.schema.message import Message, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class MaxUnPoolParameter(Message, field="max_unpool_param", number=506):
    dst_h = uint32(1)
    dst_w = uint32(2)


class MaxUnPool(LayerType):
    """Unpool by a mask into images of a given size.

    Source: brocolli-caffe 9.0.2 src/caffe/layers/maxunpool_layer.cpp MaxUnPoolLayer::Forward_cpu.
    Shape: bottom and mask N×C×H×W → N×C×dst_h×dst_w.
    Blobs: none.
    Differs: PyTorch's max_unpool2d and ONNX's MaxUnpool take integer masks, and ONNX's counts over the whole blob; here
        the mask is a float that counts within its own channel.
    """

    type = "MaxUnPool"
    params = (MaxUnPoolParameter,)
    bottoms = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(MaxUnPoolParameter)
        check_mask(layer, bottoms)
        if not p.dst_h or not p.dst_w:
            raise layer.error("it needs dst_h and dst_w")
        return [(*bottoms[0][:2], p.dst_h, p.dst_w)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        p = layer.get(MaxUnPoolParameter)
        return unpool_module((p.dst_h, p.dst_w), (1, 1), (0, 0))

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p = layer.get(MaxUnPoolParameter)
        return unpool_onnx(g, bottoms[0], bottoms[1], (p.dst_h, p.dst_w))

    examples = (
        Example(
            "two planes",
            ((1, 2, 2, 3), (1, 2, 2, 3)),
            "max_unpool_param { dst_h: 4 dst_w: 7 }",
            draws=(normal, literal([0, 3, 12, 15, 25, 27, 8, 2, 4, 14, 24, 26])),
            gradients=False,
        ),
        Example(
            "the last one stays",
            ((1, 1, 2, 2), (1, 1, 2, 2)),
            "max_unpool_param { dst_h: 3 dst_w: 3 }",
            draws=(normal, literal([4, 4, 0, 4])),
            gradients=False,
        ),
    )
