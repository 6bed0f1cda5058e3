"""Layer type LSTM: long short-term memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.layers.recurrent._recurrent_base import Recurrent, recurrent_examples

if TYPE_CHECKING:
    pass


class LSTM(Recurrent):
    """Run a long short-term memory over sequences; gates input, forget, output, new value.

    Source: src/caffe/layers/lstm_layer.cpp LSTMLayer::FillUnrolledNet, lstm_unit_layer.cpp, recurrent_layer.cpp.
    Shape: T×N×…, cont T×N, optionally static N×…, optionally h and c 1×N×D → T×N×D, optionally h and c 1×N×D.
    Blobs: W_xc 4D×I, b_c 4D, with a static input W_xc_static 4D×S, W_hc 4D×D.
    Differs: torch.nn.LSTM has another order of the gates and no cont (0 where a sequence begins), and does not keep its
        state from batch to batch. The ONNX model starts every run with a zero state; set expose_hidden for longer
        sequences. No gradient flows into or out of an exposed state.
    """

    type = "LSTM"
    letter, states, gates = "c", 2, 4
    examples = recurrent_examples(2)
