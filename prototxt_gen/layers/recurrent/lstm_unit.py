"""Layer type LSTMUnit: one step of an LSTM, used in Caffe's unrolled nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType, exactly, show_all
from prototxt_gen.layers.example import Example, literal, normal
from prototxt_gen.layers.recurrent import _recurrent_onnx as write

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class LSTMUnit(LayerType):
    """Compute cell and hidden state after one step: c = cont·σ(f)·c + σ(i)·tanh(g), h = σ(o)·tanh(c).

    Source: src/caffe/layers/lstm_unit_layer.cpp LSTMUnitLayer::Reshape, Forward_cpu, Backward_cpu.
    Shape: c 1×N×D, gates (i, f, o, g) 1×N×4D, cont 1×N → c 1×N×D, h 1×N×D.
    Blobs: none.
    Differs: if cont is between 0 and 1, the gradient of the forget gate is the true one, as in Caffe's GPU code;
        Caffe's CPU code has another one.
    """

    type = "LSTMUnit"
    bottoms = exactly(3)
    tops = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        cell, gates, cont = bottoms
        if len(cell) != 3 or cell[0] != 1 or gates != (*cell[:2], 4 * cell[2]) or cont != cell[:2]:
            raise layer.error(f"bottoms are {show_all(bottoms)}; it needs 1xNxD, 1xNx4D and 1xN")
        return [cell, cell]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        from prototxt_gen.layers.recurrent._recurrent_modules import lstm_cell

        class Step(nn.Module):
            def forward(self, cell: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
                hidden, cell = lstm_cell(gates, cell, cont.unsqueeze(2))
                return cell, hidden

        return Step()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return write.lstm_unit(g, *bottoms)

    examples = (
        Example(
            "a stream begins, another goes on",
            ((1, 2, 3), (1, 2, 12), (1, 2)),
            tops=2,
            draws=(normal, normal, literal([0, 1])),
            gradients=(True, True, False),
        ),
    )
