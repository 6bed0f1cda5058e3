"""Layer type Lstm (OCR forks): Junhyuk Oh's LSTM for whole sequences.

The file is not named lstm.py, because Caffe's LSTM is another type with other blobs and bottoms: recurrent/lstm.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, BlobSpec, LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, float32, message, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class LSTMParameter(Message, field="lstm_param", number=8266711):
    """The parameters in senlinuc/caffe_ocr. The clipping threshold limits gradients only."""

    num_output = uint32(1)
    clipping_threshold = float32(2)
    weight_filler = message(3, FillerParameter)
    bias_filler = message(4, FillerParameter)
    batch_size = uint32(5, 1)


class Lstm(LayerType):
    """Run a long short-term memory over a batch of whole sequences; gates input, forget, output, new value.

    Source: senlinuc/caffe_ocr src/caffe/layers/lstm_layer_Junhyuk.cpp, .cu LstmLayer::Forward_gpu.
    Shape: T×N×I → T×N×D.
    Blobs: W_xc 4D×I, W_hc 4D×D, b_c 4D.
    Differs: torch.nn.LSTM and ONNX's LSTM have another order of the gates and two biases. With several streams (N > 1)
        this is the result of Caffe's GPU code; its CPU code gives all streams the hidden state of the first. Gradients
        are not clipped here. A second bottom (markers of sequence starts) is refused, because its layout fits one
        stream only.
    """

    type = "Lstm"
    params = (LSTMParameter,)
    bottoms = Arity(1, 2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms) > 1:
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): a second bottom is not supported")
        if len(bottoms[0]) != 3:
            raise layer.error(f"its bottom is {show(bottoms[0])}; it needs TxNxI: time steps, streams, inputs")
        size = layer.get(LSTMParameter).num_output
        if size < 1:
            raise layer.error("num_output must be at least 1")
        return [(*bottoms[0][:2], size)]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(LSTMParameter)
        return {
            "W_xc": BlobSpec((4 * p.num_output, bottoms[0][2]), p.weight_filler),
            "W_hc": BlobSpec((4 * p.num_output, p.num_output), p.weight_filler),
            "b_c": BlobSpec((4 * p.num_output,), p.bias_filler),
        }

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        specs = self.blobs(layer, bottoms)
        return math.prod(bottoms[0][:2]) * sum(math.prod(specs[role].shape) for role in ("W_xc", "W_hc"))

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.recurrent._recurrent_modules import recurrent_module

        shapes = {role: spec.shape for role, spec in self.blobs(layer, bottoms).items()}
        return recurrent_module("c", shapes, marked=False)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        import numpy as np

        size = layer.get(LSTMParameter).num_output
        x, h, b = (_onnx_gates(blobs[role])[None] for role in ("W_xc", "W_hc", "b_c"))
        both = np.concatenate((b, np.zeros_like(b)), axis=1)
        top = g.ops("LSTM", bottoms[0], x, h, both, outputs=1, hidden_size=size)[0]
        return g.op("Squeeze", top, g.const([1], "axis"))

    examples = (
        Example("two streams", ((3, 2, 4),), "lstm_param { num_output: 3 }"),
        Example("one step", ((1, 2, 4),), "lstm_param { num_output: 3 }"),
    )


def _onnx_gates(blob: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the blob with the gates in ONNX's order: input, output, forget, new value."""
    import numpy as np

    i, f, o, new = np.split(blob, 4)
    return np.concatenate((i, o, f, new))
