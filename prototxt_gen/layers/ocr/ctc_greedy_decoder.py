"""Layer type CTCGreedyDecoder (OCR forks): the best label sequence of a CTC net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, LayerType
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.schema.message import Message, boolean, int32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class CTCDecoderParameter(Message, field="ctc_decoder_param", number=158):
    blank_index = int32(1)
    ctc_merge_repeated = boolean(2, True)


class CTCGreedyDecoder(LayerType):
    """Take the best class of each step, then remove blanks and, by default, repetitions.

    Source: senlinuc/caffe_ocr src/caffe/layers/ctc_decoder_layer.cpp CTCDecoderLayer::Forward_cpu,
        CTCGreedyDecoderLayer::Decode.
    Shape: T×N×C or T×N×C×1 → N×T×1×1: the classes, then -1 up to length T.
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator; both forms move the kept classes to the front by a sort. A second
        bottom is refused, because it has different meanings in the forks: labels (the top is an accuracy), or markers
        of sequence ends (the top is sequences).
    """

    type = "CTCGreedyDecoder"
    params = (CTCDecoderParameter,)
    bottoms = Arity(1, 3)
    tops = Arity(1, 3)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms) > 1 or len(layer.tops) > 1:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): a second bottom or top has different meanings in the forks"
            )
        (bottom,) = bottoms
        if len(bottom) not in (3, 4) or any(size != 1 for size in bottom[3:]):
            raise layer.error(f"its bottom {show(bottom)} is not T×N×C")
        if not 0 <= self._blank(layer, bottom) < bottom[2]:
            raise layer.error(f"blank_index {self._blank(layer, bottom)} is not one of the {bottom[2]} classes")
        return [(bottom[1], bottom[0], 1, 1)]

    def _blank(self, layer: Layer, bottom: Shape) -> int:
        """Return the index of the blank class; a negative blank_index means the last class."""
        blank = layer.get(CTCDecoderParameter).blank_index
        return blank if blank >= 0 else bottom[2] - 1

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn
        from torch.nn import functional

        blank, merges = self._blank(layer, bottoms[0]), layer.get(CTCDecoderParameter).ctc_merge_repeated

        class GreedyDecoder(nn.Module):
            @torch.no_grad()
            def forward(self, x: Tensor) -> Tensor:
                best = x.flatten(2).argmax(2).t()
                kept = best != blank
                if merges:
                    kept = kept & (best != functional.pad(best, (1, 0), value=-1)[:, :-1])
                order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
                return torch.where(kept, best, -1).gather(1, order).to(x.dtype)[:, :, None, None]

        return GreedyDecoder()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        import numpy as np

        (x,), shape = bottoms, g.shape(bottoms[0])
        steps = shape[0]
        x = x if len(shape) == 3 else g.op("Squeeze", x, g.const([3]))
        best = g.op("Transpose", g.op("ArgMax", x, axis=2, keepdims=0), perm=[1, 0])
        kept = g.op("Not", g.op("Equal", best, g.const(self._blank(layer, shape))))
        if layer.get(CTCDecoderParameter).ctc_merge_repeated:
            before = g.op("Pad", best, g.const([0, 1, 0, -1]), g.const(-1))
            kept = g.op("And", kept, g.op("Not", g.op("Equal", best, before)))
        places = np.arange(steps, dtype="int64")
        _, order = g.ops(
            "TopK", g.op("Where", kept, places, places + steps), g.const([steps]), outputs=2, axis=1, largest=0
        )
        sequence = g.op("GatherElements", g.op("Where", kept, best, g.const(-1)), order, axis=1)
        return g.op("Unsqueeze", g.op("Cast", sequence, to=1), g.const([2, 3]))

    examples = (
        Example("plain", ((7, 3, 4),), gradients=False),
        Example("last class blank", ((6, 2, 3, 1),), "ctc_decoder_param { blank_index: -1 }", gradients=False),
        Example("repeated", ((9, 2, 3),), "ctc_decoder_param { ctc_merge_repeated: false }", gradients=False),
        Example("nothing", ((3, 1, 2),), draws=(literal([[1, 0]] * 3),), gradients=False),
    )
