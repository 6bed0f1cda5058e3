"""ONNX nodes of the recurrent layers: a Scan over the time steps, with markers of sequence starts.

ONNX's own RNN and LSTM have sequence lengths, but no sequence starts in the middle of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.layers.onnx_graph import OnnxGraph

    Blobs = Mapping[str, np.ndarray[Any, Any]]


def scan(g: OnnxGraph, letter: str, inputs: str, cont: str, state: Sequence[str], hidden: str) -> tuple[str, ...]:
    """Write the loop; return the last states, then the hidden states of all steps, T×N×D.

    `inputs` is the contribution of the bottom to the gates, T×N×G; `cont` is T×N; each of `state` is N×D; `hidden` is
    the D×G weight.
    """
    from onnx import TensorProto, helper

    body = _body(g, letter, hidden, len(state))
    body_inputs, body_outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        for names in (body.inputs, body.outputs)
    )
    graph = helper.make_graph(body.graph.nodes, body.graph.scope, body_inputs, body_outputs, body.graph.initializers)
    return g.ops("Scan", *state, inputs, cont, outputs=len(state) + 1, body=graph, num_scan_inputs=2)


class _Body:
    """The graph of one step, with the names of its inputs and outputs."""

    def __init__(self, graph: OnnxGraph, states: int) -> None:
        self.graph = graph
        self.state = [graph.name(f"state{i}") for i in range(states)]
        self.inputs = [*self.state, graph.name("inputs"), graph.name("cont")]
        self.outputs: list[str] = []


def _body(g: OnnxGraph, letter: str, hidden: str, states: int) -> _Body:
    """Write the graph of one step."""
    graph = g.subgraph("step")
    body = _Body(graph, states)
    mark = graph.op("Unsqueeze", body.inputs[-1], graph.const([1], "axis"))
    kept = graph.op("Mul", body.state[0], mark)
    gates = graph.op("Add", graph.op("MatMul", kept, hidden), body.inputs[-2])
    after = _lstm_step(graph, gates, body.state[1], mark) if letter == "c" else (graph.op("Tanh", gates),)
    body.outputs = [*after, graph.op("Identity", after[0])]
    return body


def _lstm_step(graph: OnnxGraph, gates: str, cell: str, mark: str) -> tuple[str, ...]:
    """Write one LSTM step; return the hidden state and the cell state.

    Source: src/caffe/layers/lstm_unit_layer.cpp LSTMUnitLayer::Forward_cpu.
    """
    i, f, o, new = graph.ops("Split", gates, outputs=4, axis=-1, num_outputs=4)
    kept = graph.op("Mul", graph.op("Mul", mark, graph.op("Sigmoid", f)), cell)
    cell = graph.op("Add", kept, graph.op("Mul", graph.op("Sigmoid", i), graph.op("Tanh", new)))
    return graph.op("Mul", graph.op("Sigmoid", o), graph.op("Tanh", cell)), cell


def lstm_unit(g: OnnxGraph, cell: str, gates: str, cont: str) -> tuple[str, str]:
    """Write one LSTM step on 1×N×D, 1×N×4D and 1×N; return the cell state and the hidden state."""
    hidden, cell = _lstm_step(g, gates, cell, g.op("Unsqueeze", cont, g.const([2], "axis")))
    return cell, hidden


def input_gates(g: OnnxGraph, letter: str, x: str, static: str | None, blobs: Blobs) -> str:
    """Write the contribution of the bottoms to the gates of all steps: T×N×G."""
    if len(g.shape(x)) > 3:
        x = g.op("Reshape", x, g.const([0, 0, -1], "shape"))
    gates = g.op("Add", g.op("MatMul", x, blobs[f"W_x{letter}"].T.copy()), blobs[f"b_{letter}"])
    if static is None:
        return gates
    flat = g.op("Flatten", static, axis=1)
    return g.op("Add", gates, g.op("MatMul", flat, blobs[f"W_x{letter}_static"].T.copy()))


def zero_state(g: OnnxGraph, cont: str, size: int) -> str:
    """Write N×size zeros, where N is the batch size with which the model is run."""
    shape = g.op("Concat", g.op("Shape", cont, start=1, end=2), g.const([size], "size"), axis=0)
    return g.op("Expand", g.const(0.0, "zero"), shape)
