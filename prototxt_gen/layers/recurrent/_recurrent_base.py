"""S"""

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
    """What both share. Source: src/caffe/layers/recurrent_layer.cpp RecurrentLayer::LayerSetUp, Reshape."""

    params = (RecurrentParameter,)
    bottoms = Arity(2)
    tops = Arity(1)
    letter: ClassVar[str] = ""
    """What Caffe calls the gates in the names of its weights."""
    states: ClassVar[int] = 0
    gates: ClassVar[int] = 0

    def exposed(self, layer: Layer) -> int:
        """Return how many state blobs are bottoms and tops of the layer."""
        return self.states if layer.get(RecurrentParameter).expose_hidden else 0

    def static(self, layer: Layer) -> bool:
        """Whether the third bottom is an input that is the same at all steps."""
        return len(layer.bottoms) > 2 + self.exposed(layer)

    def check_arity(self, layer: Layer) -> None:
        super().check_arity(layer)
        low = 2 + self.exposed(layer)
        if len(layer.bottoms) > low + 1 or len(layer.bottoms) < low:
            raise layer.error(f"it takes {low} or {low + 1} bottoms, not {len(layer.bottoms)}")
        if len(layer.tops) != 1 + self.exposed(layer):
            raise layer.error(f"it takes {1 + self.exposed(layer)} tops, not {len(layer.tops)}")

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        x, cont = bottoms[:2]
        if len(x) < 3 or cont != x[:2]:
            raise layer.error(f"bottoms are {show_all(bottoms)}; it takes TxNx… and TxN, steps first, then streams")
        size = layer.get(RecurrentParameter).num_output
        if size < 1:
            raise layer.error("num_output must be at least 1")
        self._check_others(layer, bottoms, (1, x[1], size))
        return [(*x[:2], size), *[(1, x[1], size)] * self.exposed(layer)]

    def _check_others(self, layer: Layer, bottoms: Sequence[Shape], state: Shape) -> None:
        static = self.static(layer)
        if static and (len(bottoms[2]) < 2 or bottoms[2][0] != state[1]):
            raise layer.error(f"its static input is {show(bottoms[2])}; it must be {state[1]}x…, one row a stream")
        for given in bottoms[2 + static :]:
            if given != state:
                raise layer.error(f"the state it is given is {show(given)}, and must be {show(state)}")

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
        inputs = write.from_outside(g, self.letter, bottoms[0], bottoms[2] if static else None, blobs)
        if exposed:
            state = [g.op("Squeeze", bottom, g.const([0], "axis")) for bottom in bottoms[2 + static :]]
        else:
            state = [write.zero_state(g, bottoms[1], layer.get(RecurrentParameter).num_output)] * self.states
        weights = g.const(blobs[f"W_h{self.letter}"].T.copy(), f"W_h{self.letter}")
        *last, hidden = write.scan(g, self.letter, inputs, bottoms[1], state, weights)
        tops = [g.op("Unsqueeze", each, g.const([0], "axis")) for each in last] if exposed else []
        return [self.onnx_output(g, hidden, blobs), *tops]

    def onnx_output(self, g: OnnxGraph, hidden: str, blobs: Mapping[str, np.ndarray[Any, Any]]) -> str:
        return hidden


_CONT = literal([[0, 0], [1, 1], [1, 0]])
"""Two streams of three steps: the second stream begins anew at the third."""
_GOING_ON = literal([[1, 0], [1, 1]])
_PARAM = "recurrent_param { num_output: 3 }"
_EXPOSED = "recurrent_param { num_output: 3 expose_hidden: true }"


def _half(rng: np.random.Generator, shape: Shape) -> np.ndarray[Any, Any]:
    """Small enough that no gate is ever quite open or shut."""
    return rng.standard_normal(shape) * 0.5


def recurrent_examples(states: int) -> tuple[Example, ...]:
    first = (True, False)
    state = ((1, 2, 3),) * states
    draws: tuple[Draw, ...] = (normal, _GOING_ON, *[normal] * states)
    many = 1 + states
    return (
        Example("plain", ((3, 2, 4), (3, 2)), _PARAM, draws=(normal, _CONT), blobs=_half, gradients=first),
        Example("maps", ((3, 2, 2, 1, 2), (3, 2)), _PARAM, draws=(normal, _CONT), blobs=_half, gradients=first),
        Example(
            "static input",
            ((3, 2, 4), (3, 2), (2, 5)),
            _PARAM,
            draws=(normal, _CONT, normal),
            blobs=_half,
            gradients=(True, False, True),
        ),
        Example("one step", ((1, 2, 4), (1, 2)), _PARAM, draws=(normal, literal([0, 0])), blobs=_half, gradients=first),
        Example(
            "exposed state",
            ((2, 2, 4), (2, 2), *state),
            _EXPOSED,
            many,
            draws=draws,
            blobs=_half,
            gradients=(True, False, *[False] * states),
        ),
        Example(
            "static input, exposed state",
            ((2, 2, 4), (2, 2), (2, 2, 2), *state),
            _EXPOSED,
            many,
            draws=(*draws[:2], normal, *draws[2:]),
            blobs=_half,
            gradients=(True, False, True, *[False] * states),
        ),
    )
