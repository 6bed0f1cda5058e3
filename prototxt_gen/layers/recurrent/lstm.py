"""P"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototxt_gen.layers.recurrent._recurrent_base import Recurrent, recurrent_examples

if TYPE_CHECKING:
    pass


class LSTM(Recurrent):
    """Long short-term memory; gates input, forget, output, new value.

    Source: src/caffe/layers/lstm_layer.cpp LSTMLayer::FillUnrolledNet, lstm_unit_layer.cpp, recurrent_layer.cpp.
    Shape: T×N×…, cont T×N (, static N×…) (, h and c 1×N×D) → T×N×D (, h and c 1×N×D).
    Blobs: W_xc 4D×I, b_c 4D, with a static input W_xc_static 4D×S, W_hc 4D×D.
    Differs: from torch.nn.LSTM: the order of the gates, cont (0 where a sequence begins), and the state is carried from
    batch to batch. ONNX begins every run with a state of zeros: for a longer sequence set expose_hidden. No gradient
    goes into or comes from an exposed state.
    """

    type = "LSTM"
    letter, states, gates = "c", 2, 4
    examples = recurrent_examples(2)
