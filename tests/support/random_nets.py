"""Hypothesis strategies for property tests: random small nets from the Builder, and unusual prototxts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Net, Value
from prototxt_gen.net.builder import Builder

Draw = st.DrawFn
small = st.integers(1, 4)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def _window(draw: Draw) -> dict[str, Any]:
    window = {"kernel_size": draw(small), "stride": draw(small)}
    return window | ({"pad": draw(st.integers(0, window["kernel_size"] - 1))} if draw(st.booleans()) else {})


def _convolution(draw: Draw) -> dict[str, Any]:
    fields = _window(draw) | {"num_output": draw(small) * 2, "bias_term": draw(st.booleans())}
    if draw(st.booleans()):
        fields["weight_filler"] = {"type": draw(names), "std": draw(floats)}
    return fields | ({"group": 2} if draw(st.booleans()) else {})


def _pooling(draw: Draw) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"pool": "AVE", "global_pooling": True}
    return _window(draw) | {"pool": draw(st.sampled_from(["MAX", "AVE", "STOCHASTIC"]))}


UNARY: dict[str, Callable[[Draw], dict[str, Any]]] = {
    "Convolution": _convolution,
    "Deconvolution": lambda draw: {"convolution_param": _convolution(draw)},
    "Pooling": _pooling,
    "InnerProduct": lambda draw: {"num_output": draw(small), "axis": draw(st.sampled_from([1, 2, -1]))},
    "Power": lambda draw: {"power": draw(floats), "scale": draw(floats), "shift": draw(floats)},
    "LRN": lambda draw: {"local_size": draw(st.sampled_from([1, 3, 5])), "alpha": draw(floats)},
    "BN": lambda draw: {"momentum": draw(floats), "frozen": draw(st.booleans())},
    "BatchNorm": lambda draw: {"use_global_stats": draw(st.booleans())},
    "Scale": lambda draw: {"bias_term": draw(st.booleans()), "axis": draw(st.integers(-2, 2))},
    "Interp": lambda draw: {"height": draw(small), "width": draw(small)},
    "Permute": lambda draw: {"order": draw(st.permutations([0, 1, 2, 3]))},
    "Reshape": lambda draw: {"shape": {"dim": [0, -1]}},
    "Flatten": lambda draw: {"axis": draw(st.sampled_from([0, 1, 2]))},
    "Softmax": lambda draw: {"axis": draw(st.integers(-2, 1))},
    "PReLU": lambda draw: {"channel_shared": draw(st.booleans())},
}
ANYWHERE = ("ReLU", "Sigmoid", "Dropout", "TanH", "BNLL", "AbsVal")
"""Layer types that may run in place."""


@st.composite
def built_nets(draw: Draw) -> Net:
    """Return a random net of up to 12 layers; layers that the Builder refuses are left out."""
    b = Builder(draw(names))
    inputs = draw(st.lists(names, min_size=1, max_size=2, unique=True))
    live = [b.input(name, (draw(small), 2 * draw(small), 8, draw(st.integers(4, 9)))) for name in inputs]
    for index in range(draw(st.integers(0, 12))):
        try:
            _add(draw, b, live, index)
        except NetError:
            continue
    return b.build()


def _add(draw: Draw, b: Builder, live: list[Value], index: int) -> None:
    name = f"{draw(names)}{index}"
    x = draw(st.sampled_from(live))
    kind = draw(st.sampled_from(["unary", "unary", "unary", "anywhere", "join", "slice"]))
    if kind == "unary":
        type_ = draw(st.sampled_from(sorted(UNARY)))
        live.append(b.add(type_, name, x, **UNARY[type_](draw), **_of_the_layer(draw)))
    elif kind == "anywhere":
        in_place = draw(st.booleans())
        made = b.add(draw(st.sampled_from(ANYWHERE)), name, x, in_place=in_place, **_of_the_layer(draw))
        live[live.index(x)] = made
    elif kind == "join":
        y = draw(st.sampled_from(live))
        live.append(b.add(draw(st.sampled_from(["Eltwise", "Concat"])), name, x, y))
    else:
        live += b.add_many("Slice", name, x, tops=(f"{name}/a", f"{name}/b"), axis=1)


def _of_the_layer(draw: Draw) -> dict[str, Any]:
    """Return fields that any layer may have, with rules that keep the layer in both phases."""
    some: dict[str, Any] = {
        "param": [{"lr_mult": draw(floats), "name": draw(names)}, {}],
        "propagate_down": [draw(st.booleans())],
        "loss_weight": draw(floats),
        "include": [{"phase": "TRAIN", "not_stage": draw(names)}, {"phase": "TEST", "min_level": -3}],
    }
    return {field: some[field] for field in draw(st.sets(st.sampled_from(sorted(some)), max_size=2))}
