"""LSTM and RNN: bottoms are time steps × streams; `cont` is 0 where a sequence begins."""

from __future__ import annotations

from prototxt_gen.layers.example import literal
from tests.behaviours.notation import B

_ALL_ON = literal([[0, 0], [1, 1], [1, 1], [1, 1]])
_BROKEN = literal([[0, 1], [1, 0], [0, 1], [1, 1]])
_HIDDEN = "recurrent_param { num_output: 3 expose_hidden: true }"


def recurrent(name: str, type_: str, inputs: str, ends: str, params: str = "recurrent_param { num_output: 3 }") -> B:
    cont = _BROKEN if "broken" in name else _ALL_ON
    return B(f"{type_.lower()}: {name}", inputs, f"rec: {type_} {ends} | {params}", draws={"cont": cont})


BEHAVIOURS = tuple(
    made
    for type_, states in (("LSTM", "h0 c0 > out h c"), ("RNN", "h0 > out h"))
    for made in (
        recurrent("one sequence", type_, "data 4 2 5; cont 4 2", "data cont > out"),
        recurrent("broken sequences", type_, "data 4 2 5; cont 4 2", "data cont > out"),
        recurrent("static input", type_, "data 4 2 5; cont 4 2; x 2 4", "data cont x > out"),
        recurrent("static input, broken sequences", type_, "data 4 2 5; cont 4 2; x 2 4", "data cont x > out"),
        recurrent("features of two axes", type_, "data 4 2 3 2; cont 4 2", "data cont > out"),
        recurrent(
            "hidden states in and out, broken",
            type_,
            "data 4 2 5; cont 4 2; h0 1 2 3" + ("; c0 1 2 3" if type_ == "LSTM" else ""),
            f"data cont {states}",
            _HIDDEN,
        ),
    )
)
