"""Unknown fields are kept in every message, and fields accept the same values as protobuf."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prototxt_gen import layers
from prototxt_gen.ir import Net
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.render import net_text
from prototxt_gen.net.to_protobuf import fill_from_text, protobuf_classes
from prototxt_gen.schema.caffe_proto import LayerParameter, NetParameter
from prototxt_gen.schema.message import Field, Message
from prototxt_gen.text import Field as TextField
from prototxt_gen.text import Word, format_fields, parse

pytestmark = pytest.mark.fuzz

MANY = settings(max_examples=200, deadline=None)
Tree = tuple[TextField, ...]
TREE = parse("""
name: "wild"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 16 dim: 16 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "norm" type: "Normalize" bottom: "pool" top: "norm" norm_param { scale_filler { value: 20 } } }
layer { name: "prior" type: "PriorBox" bottom: "norm" bottom: "data" top: "prior" include { phase: TEST }
  prior_box_param { min_size: 3 aspect_ratio: 2 flip: true variance: 0.1 } }
layer { name: "loss" type: "Python" bottom: "prior" top: "loss" python_param { module: "m" layer: "L" } }
""")
unknown_names = st.sampled_from(["resize", "mystery", "blobs_lr", "q"]).map(lambda name: f"{name}_of_a_fork")

scalars = st.one_of(
    st.integers(-(2**63), 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from([Word("LINEAR"), Word("true"), Word("inf")]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(st.builds(TextField, unknown_names, inner, st.just(0)), max_size=3).map(tuple),
    max_leaves=6,
)


def messages(tree: Tree) -> int:
    """Return how many messages a tree holds, itself included."""
    return 1 + sum(messages(value) for _, value, _ in tree if isinstance(value, tuple))


def planted(tree: Tree, at: int, field: TextField, place: int) -> Tree:
    """Return the tree with a field put into its message number `at`, counted in the order they open."""
    if at == 0:
        return (*tree[:place], field, *tree[place:])
    out, left = [], at - 1
    for name, value, line in tree:
        if isinstance(value, tuple):
            count = messages(value)
            value = planted(value, left, field, place) if 0 <= left < count else value
            left -= count
        out.append(TextField(name, value, line))
    return tuple(out)


fields = st.builds(TextField, unknown_names, values, st.just(0))
plantings = st.lists(st.tuples(st.integers(0, messages(TREE) - 1), fields, st.integers(0, 4)), min_size=1, max_size=6)


def extras(net: Net) -> Counter[tuple[str, str]]:
    """Return the fields that no schema knows, with their values, in whatever order."""
    found = [extra for layer in net.layers for _, extra in layer.params.walk_extras()]
    return Counter((extra.name, repr(extra.plain)) for extra in (*found, *net.params.extras))


@MANY
@given(plantings)
def test_unknown_fields_are_kept_in_every_message(where: list[tuple[int, TextField, int]]) -> None:
    tree = TREE
    for at, field, place in sorted(where, key=lambda planting: -planting[0]):  # so that the numbers before stay
        tree = planted(tree, at, field, place)
    net = parse_net(format_fields(tree))
    assert Counter(name for name, _ in extras(net).elements()) == Counter(field.name for _, field, _ in where)
    text = net_text(net)
    again = parse_net(text)
    assert again == net
    assert extras(again) == extras(net)
    assert net_text(again) == text


def every_field() -> list[tuple[type[Message], Field[Any]]]:
    """Return each field of each message that a net may hold, but those that hold messages."""
    layers.all_layer_types()
    kinds, waiting = set(), [NetParameter, LayerParameter]
    while waiting:
        kind = waiting.pop()
        kinds.add(kind)
        waiting += {f.message for f in kind.fields.values() if f.message} - kinds
    pairs = [(kind, known) for kind in sorted(kinds, key=lambda kind: kind.__name__) for known in kind.fields.values()]
    return [(kind, known) for kind, known in pairs if known.message is None]


odd = st.sampled_from(
    [0, 1, -1, 7, 2.0, -0.0, 2**31, -(2**31), 2**32, 1e39, "0", "MAX", Word("MAX"), Word("false"), ()]
)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(every_field()), st.lists(scalars | odd, max_size=3))
def test_schema_and_protobuf_accept_the_same_values(field: tuple[type[Message], Field[Any]], given: list[Any]) -> None:
    """Our messages, and protobuf's made from the same declaration, keep and refuse the same values."""
    kind, known = field
    tree = tuple(TextField(known.name, value, 1) for value in given)
    ours, theirs = kind.from_text(tree), protobuf_classes(None)[kind.proto]()
    assert fill_from_text(theirs, tree) == len(ours.extras)
    kept = dict(ours.set_fields()).get(known.name, ())
    if known.repeated:
        assert len(kept) == len(getattr(theirs, known.name))
    else:
        assert ours.has(known.name) == theirs.HasField(known.name)
