"""The base class of RNN and LSTM, their parameters and their examples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, BlobSpec, LayerType, show_all
from prototxt_gen.layers.example import Draw, Example, literal, normal
from prototxt_gen.layers.recurrent import _recurrent_onnx as write
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, boolean, message, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class RecurrentParameter(Message, field="recurrent_param", number=146):
    num_output = uint32(1)
    weight_filler = message(2, FillerParameter)
    bias_filler = message(3, FillerParameter)
    debug_info = boolean(4)
    expose_hidden = boolean(5)


class Recurrent(LayerType):
    """Base of RNN and LSTM, which Caffe unrolls into a net over the steps of a batch.

    Source: src/caffe/layers/recurrent_layer.cpp RecurrentLayer::LayerSetUp, Reshape.
    """

    params = (RecurrentParameter,)
    bottoms = Arity(2)
    tops = Arity(1)
    letter: ClassVar[str] = ""
    """Letter in the names of Caffe's weights, as in W_xh: "h" for RNN, "c" for LSTM."""
    states: ClassVar[int] = 0
    """Number of state blobs."""
    gates: ClassVar[int] = 0
    """Number of gates, as a multiple of num_output."""

    def exposed(self, layer: Layer) -> int:
        """Return how many state blobs are bottoms and tops of the layer (expose_hidden)."""
        return self.states if layer.get(RecurrentParameter).expose_hidden else 0

    def static(self, layer: Layer) -> bool:
        """Whether the third bottom is a static input, which is the same at all steps."""
        return len(layer.bottoms) > 2 + self.exposed(layer)

    def check_arity(self, layer: Layer) -> None:
        super().check_arity(layer)
        low = 2 + self.exposed(layer)
        if len(layer.bottoms) > low + 1 or len(layer.bottoms) < low:
            raise layer.error(f"it needs {low} or {low + 1} bottoms, not {len(layer.bottoms)}")
        if len(layer.tops) != 1 + self.exposed(layer):
            raise layer.error(f"it needs {1 + self.exposed(layer)} tops, not {len(layer.tops)}")

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        x, cont = bottoms[:2]
        if len(x) < 3 or cont != x[:2]:
            raise layer.error(f"bottoms are {show_all(bottoms)}; it needs TxNx… and TxN: time steps, then streams")
        size = layer.get(RecurrentParameter).num_output
        if size < 1:
            raise layer.error("num_output must be at least 1")
        self._check_others(layer, bottoms, (1, x[1], size))
        return [(*x[:2], size), *[(1, x[1], size)] * self.exposed(layer)]

    def _check_others(self, layer: Layer, bottoms: Sequence[Shape], state: Shape) -> None:
        static = self.static(layer)
        if static and (len(bottoms[2]) < 2 or bottoms[2][0] != state[1]):
            raise layer.error(
                f"its static input is {show(bottoms[2])}; it must be {state[1]}x…, with one row for each stream"
            )
        for bottom in bottoms[2 + static :]:
            if bottom != state:
                raise layer.error(f"its state bottom is {show(bottom)}; it must be {show(state)}")

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        return dict(self._blobs(layer, bottoms))

    def _blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> Iterator[tuple[str, BlobSpec]]:
        p, x = layer.get(RecurrentParameter), f"W_x{self.letter}"
        outputs = p.num_output * self.gates
        yield x, BlobSpec((outputs, math.prod(bottoms[0][2:])), p.weight_filler)
        yield f"b_{self.letter}", BlobSpec((outputs,), p.bias_filler)
        if self.static(layer):
            yield f"{x}_static", BlobSpec((outputs, math.prod(bottoms[2][1:])), p.weight_filler)
        yield f"W_h{self.letter}", BlobSpec((outputs, p.num_output), p.weight_filler)

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        steps, streams = bottoms[0][:2]
        weights = {role: spec.shape for role, spec in self.blobs(layer, bottoms).items() if len(spec.shape) == 2}
        times = {role: 1 if role.endswith("_static") else steps for role in weights}
        return sum(times[role] * streams * math.prod(shape) for role, shape in weights.items())

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.recurrent._recurrent_modules import recurrent_module

        shapes = {role: spec.shape for role, spec in self.blobs(layer, bottoms).items()}
        return recurrent_module(self.letter, shapes, self.static(layer), bool(self.exposed(layer)))

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        static, exposed = self.static(layer), self.exposed(layer)
        inputs = write.input_gates(g, self.letter, bottoms[0], bottoms[2] if static else None, blobs)
        if exposed:
            state = [g.op("Squeeze", bottom, g.const([0], "axis")) for bottom in bottoms[2 + static :]]
        else:
            state = [write.zero_state(g, bottoms[1], layer.get(RecurrentParameter).num_output)] * self.states
        weights = g.const(blobs[f"W_h{self.letter}"].T.copy(), f"W_h{self.letter}")
        *last, hidden = write.scan(g, self.letter, inputs, bottoms[1], state, weights)
        tops = [g.op("Unsqueeze", each, g.const([0], "axis")) for each in last] if exposed else []
        return [self.onnx_output(g, hidden, blobs), *tops]

    def onnx_output(self, g: OnnxGraph, hidden: str, blobs: Mapping[str, np.ndarray[Any, Any]]) -> str:
        """Write the top, given the hidden states of all steps. Default: the hidden states."""
        return hidden


_CONT = literal([[0, 0], [1, 1], [1, 0]])
"""Two streams of three steps: a new sequence begins at the third step of the second stream."""
_CONT_EXPOSED = literal([[1, 0], [1, 1]])
_PARAM = "recurrent_param { num_output: 3 }"
_EXPOSED = "recurrent_param { num_output: 3 expose_hidden: true }"


def _small_normal(rng: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
    """Draw from a normal distribution of standard deviation 0.5, so that no gate is saturated."""
    return rng.standard_normal(shape) * 0.5


def recurrent_examples(states: int) -> tuple[Example, ...]:
    """Return the examples of a type with this number of state blobs."""
    first = (True, False)
    state = ((1, 2, 3),) * states
    draws: tuple[Draw, ...] = (normal, _CONT_EXPOSED, *[normal] * states)
    tops = 1 + states
    return (
        Example("plain", ((3, 2, 4), (3, 2)), _PARAM, draws=(normal, _CONT), blobs=_small_normal, gradients=first),
        Example("maps", ((3, 2, 2, 1, 2), (3, 2)), _PARAM, draws=(normal, _CONT), blobs=_small_normal, gradients=first),
        Example(
            "static input",
            ((3, 2, 4), (3, 2), (2, 5)),
            _PARAM,
            draws=(normal, _CONT, normal),
            blobs=_small_normal,
            gradients=(True, False, True),
        ),
        Example(
            "one step",
            ((1, 2, 4), (1, 2)),
            _PARAM,
            draws=(normal, literal([0, 0])),
            blobs=_small_normal,
            gradients=first,
        ),
        Example(
            "exposed state",
            ((2, 2, 4), (2, 2), *state),
            _EXPOSED,
            tops,
            draws=draws,
            blobs=_small_normal,
            gradients=(True, False, *[False] * states),
        ),
        Example(
            "static input, exposed state",
            ((2, 2, 4), (2, 2), (2, 2, 2), *state),
            _EXPOSED,
            tops,
            draws=(*draws[:2], normal, *draws[2:]),
            blobs=_small_normal,
            gradients=(True, False, True, *[False] * states),
        ),
    )
