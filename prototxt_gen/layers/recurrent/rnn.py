"""Layer type RNN: a recurrent layer with one hidden state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import BlobSpec
from prototxt_gen.layers.recurrent._recurrent_base import Recurrent, RecurrentParameter, recurrent_examples

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class RNN(Recurrent):
    """Compute hidden = tanh(W_hh·(cont·hidden) + W_xh·x + b_h) step by step; the top is tanh(W_ho·hidden + b_o).

    Source: src/caffe/layers/rnn_layer.cpp RNNLayer::FillUnrolledNet, recurrent_layer.cpp.
    Shape: T×N×…, cont T×N, optionally static N×…, optionally state 1×N×D → T×N×D, optionally state 1×N×D.
    Blobs: W_xh D×I, b_h D, with a static input W_xh_static D×S, W_hh D×D, W_ho D×D, b_o D.
    Differs: torch.nn.RNN has no cont (0 where a sequence begins) and no output layer, and does not keep its state from
        batch to batch. The ONNX model starts every run with a zero state; set expose_hidden for longer sequences. No
        gradient flows into or out of an exposed state.
    """

    type = "RNN"
    letter, states, gates = "h", 1, 1

    def _blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> Iterator[tuple[str, BlobSpec]]:
        yield from super()._blobs(layer, bottoms)
        p = layer.get(RecurrentParameter)
        yield "W_ho", BlobSpec((p.num_output, p.num_output), p.weight_filler)
        yield "b_o", BlobSpec((p.num_output,), p.bias_filler)

    def onnx_output(self, g: OnnxGraph, hidden: str, blobs: Mapping[str, np.ndarray[Any, Any]]) -> str:
        return g.op("Tanh", g.op("Add", g.op("MatMul", hidden, blobs["W_ho"].T.copy()), blobs["b_o"]))

    examples = recurrent_examples(1)
