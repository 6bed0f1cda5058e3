"""Laws of the text format: printed text is parsed to the same tree, and protobuf agrees; damaged ones are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.text import Field, Word, format_fields, parse
from tests.text.test_text import data, slowly

pytestmark = pytest.mark.fuzz

MODELS = Path(__file__).parents[3] / "shared" / "models"
SAMPLE = r"""
name: "AttentionA" # a net
layer { name: "ip\t1" type: 'Inner' "Product"; bottom: "data", top: "ip1"
  param { lr_mult: 1 } param < lr_mult: 2. decay_mult: -.5e-3f >
  inner_product_param: { num_output: 10 weight_filler { type: "xavier" } axis: - 1 } # the end
  /* a list */ dim: [1, 0x10, 017] include [{ phase: TRAIN }, <stage: "a">] // done
  [caffe.ext.field]: true
}
"""

identifiers = st.from_regex(r"[A-Za-z_]\w{0,6}", fullmatch=True, alphabet=st.characters(max_codepoint=127))
strings = st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))
floats = st.floats(allow_nan=False).filter(lambda value: value != math.inf)
scalars = st.integers() | floats | strings | identifiers.map(Word)
names = identifiers | identifiers.map(lambda name: f"[a.{name}]")
trees = st.recursive(
    st.lists(st.builds(Field, names, scalars, st.just(1)), max_size=3).map(tuple),
    lambda inner: st.lists(st.builds(Field, names, scalars | inner, st.just(1)), max_size=4).map(tuple),
)


@given(trees)
def test_printed_text_is_parsed_to_the_same_tree(fields: tuple[Field, ...]) -> None:
    text = format_fields(fields)
    assert data(parse(text)) == data(fields)
    assert data(parse(text.encode())) == data(fields)
    assert format_fields(parse(text)) == text


def _schema() -> type[Any]:
    """A message class with a repeated field of every kind of value, made from a descriptor."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="oracle", syntax="proto2")
    message = file.message_type.add(name="M")
    message.enum_type.add(name="E").value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=name, number=number) for number, name in enumerate(("FOO", "inf"))
    )
    for number, (name, kind, of) in enumerate(KINDS, 1):
        message.field.add(name=name, number=number, label=kinds.LABEL_REPEATED, type=kind, type_name=of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("oracle.M"))


_KIND = descriptor_pb2.FieldDescriptorProto
KINDS = [
    ("i", _KIND.TYPE_INT64, None),
    ("d", _KIND.TYPE_DOUBLE, None),
    ("f", _KIND.TYPE_FLOAT, None),
    ("s", _KIND.TYPE_STRING, None),
    ("y", _KIND.TYPE_BYTES, None),
    ("b", _KIND.TYPE_BOOL, None),
    ("e", _KIND.TYPE_ENUM, ".oracle.M.E"),
    ("m", _KIND.TYPE_MESSAGE, ".oracle.M"),
]
Message = _schema()


def fill(message: Any, fields: tuple[Field, ...]) -> Any:
    """Put fields into a message as its schema has it."""
    convert: dict[str, Any] = {
        "y": lambda text: text.encode("utf-8", "surrogateescape"),
        "b": lambda word: word == "true",
    }
    convert |= {"d": float, "f": float, "e": message.E.Value}
    for name, value, _ in fields:
        if isinstance(value, tuple):
            fill(getattr(message, name).add(), value)
        else:
            getattr(message, name).append(convert.get(name, lambda same: same)(value))
    return message


def as_fields(draw: st.DrawFn, depth: int) -> Iterator[Field]:
    values: dict[str, st.SearchStrategy[Any]] = {
        "i": st.integers(-(2**63), 2**63 - 1),
        "d": floats,
        "f": st.floats(width=32, allow_nan=False).filter(lambda value: value != math.inf),
        "s": st.text(),
        "y": strings,
        "b": st.sampled_from([Word("true"), Word("false")]),
        "e": st.sampled_from([Word("FOO"), Word("inf")]),
    }
    for name in draw(st.lists(st.sampled_from("idfsybem" if depth else "idfsybe"), max_size=5)):
        yield Field(name, tuple(as_fields(draw, depth - 1)) if name == "m" else draw(values[name]), 1)


@st.composite
def typed_trees(draw: st.DrawFn) -> tuple[Field, ...]:
    return tuple(as_fields(draw, 3))


@given(typed_trees())
def test_protobuf_parses_printed_text(fields: tuple[Field, ...]) -> None:
    assert text_format.Parse(format_fields(fields), Message()) == fill(Message(), fields)


OPTIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    dict.fromkeys(("as_utf8", "as_one_line", "use_short_repeated_primitives", "pointy_brackets"), st.booleans())
)


@given(typed_trees(), OPTIONS)
def test_text_printed_by_protobuf_is_parsed(fields: tuple[Field, ...], options: dict[str, Any]) -> None:
    message = fill(Message(), fields)
    assert fill(Message(), parse(text_format.MessageToString(message, **options))) == message


def test_every_real_prototxt_is_parsed_by_the_fast_and_the_full_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    if not MODELS.is_dir():
        pytest.skip("no folder of real models beside the checkout")
    files = sorted(MODELS.rglob("*.prototxt"))
    assert files
    for file in files:
        fields = parse(file.read_bytes())
        assert fields, file
        assert slowly(file.read_bytes(), monkeypatch) == fields, file
        assert data(parse(format_fields(fields))) == data(fields), file


def damaged(random: Random, text: str) -> str:
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(text) + 1)
        end = start + random.choice([0, 0, 1, 1, 2, 30, len(text)])
        text = (
            text[:start] + random.choice(["", "", *"{}<>[]:,;\"'\\#/*-.0x\n\0é\ud800", "/*", "inf", "a: "]) + text[end:]
        )
    return text


@settings(max_examples=1000)
@given(st.randoms(use_true_random=False))
def test_damaged_texts_give_a_tree_or_a_clear_error(random: Random) -> None:
    text = damaged(random, SAMPLE)
    with pytest.MonkeyPatch.context() as monkeypatch:
        outcomes = [outcome(text, parse), outcome(text, lambda text: slowly(text, monkeypatch))]
    assert outcomes[0] == outcomes[1]


@given(st.binary())
def test_any_bytes_give_a_tree_or_a_clear_error(raw: bytes) -> None:
    outcome(raw, parse)


def outcome(text: str | bytes, read: Callable[[str | bytes], tuple[Field, ...]]) -> object:
    try:
        fields = read(text)
    except PrototxtError as error:
        assert re.match(r"line \d+: .|the file ", str(error))
        return str(error), error.line
    assert data(parse(format_fields(fields))) == data(fields)
    return data(fields)
