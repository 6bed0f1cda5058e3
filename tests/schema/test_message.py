"""Messages: defaults and presence as in protobuf, checks of values, and kept unknown fields."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest

from prototxt_gen.common.errors import NetError
from prototxt_gen.layers.vision.convolution import ConvolutionParameter
from prototxt_gen.layers.vision.pooling import PoolingParameter
from prototxt_gen.schema.caffe_proto import FillerParameter, LayerParameter, NetStateRule, ParamSpec
from prototxt_gen.schema.message import Message, enum, float32, int64, message, repeated, string, uint32
from prototxt_gen.text import Word, format_fields, parse


class Inner(Message):
    size = uint32(1, 3)
    names = repeated(string(2))


class Outer(Message):
    mode = enum(1, "ONE", "TWO", THREE=7, default="TWO")
    rate = float32(2, 0.5)
    big = int64(3)
    inner = message(4, Inner)
    many = repeated(message(5, Inner))
    modes = repeated(enum(6, "A", "B"))


def read(text: str) -> Outer:
    return Outer.from_text(parse(text))


def test_unset_fields_read_as_their_defaults() -> None:
    empty = Outer()
    assert (empty.mode, empty.rate, empty.big, empty.inner, empty.many) == ("TWO", 0.5, 0, Inner(), ())
    assert empty.inner.size == 3
    assert not empty
    assert not empty.has("rate")


def test_a_field_set_to_its_default_is_set() -> None:
    explicit = Outer(rate=0.5)
    assert explicit.has("rate")
    assert explicit != Outer()
    assert format_fields(explicit.to_text()) == "rate: 0.5\n"


def test_values_are_converted_to_the_type_of_the_field() -> None:
    made = Outer(mode=7, rate=2, inner={"size": 4}, many=[{"size": 1}, Inner()], modes="A")
    assert made.mode == "THREE"
    assert isinstance(made.rate, float)
    assert made.inner == Inner(size=4)
    assert made.many == (Inner(size=1), Inner())
    assert made.modes == ("A",)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"mode": "THRE"}, r"Outer\.mode: expected one of ONE, TWO, THREE; did you mean 'THREE'\?, not 'THRE'"),
        ({"mode": True}, r"Outer\.mode: expected one of"),
        ({"mode": 3}, r"Outer\.mode: expected one of"),
        ({"rate": "fast"}, r"Outer\.rate: expected a number, not 'fast'"),
        ({"rate": True}, r"Outer\.rate: expected a number"),
        ({"big": 2**63}, r"Outer\.big: expected int64, a whole number from -\d+ to \d+"),
        ({"big": 1.0}, r"Outer\.big: expected int64"),
        ({"inner": 3}, r"Outer\.inner: expected a Inner message"),
        ({"inner": {"size": -1}}, r"Inner\.size: expected uint32"),
        ({"inner": {"names": [3]}}, r"Inner\.names: expected a string in quotes"),
        ({"rat": 1}, r"Outer has no field 'rat'; did you mean 'rate'\?"),
    ],
)
def test_wrong_values_raise_at_once(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(NetError, match=error):
        Outer(**fields)
    with pytest.raises(NetError, match=error):
        Outer().replace(**fields)


def test_frozen() -> None:
    made = Outer(rate=1)
    with pytest.raises(AttributeError, match="frozen; use replace"):
        made.rate = 2
    assert made.replace(rate=2).rate == 2
    assert made.replace(rate=None) == Outer()
    assert made.rate == 1


def test_has_of_an_unknown_field_raises_key_error() -> None:
    with pytest.raises(KeyError, match="did you mean 'inner'"):
        Outer().has("iner")


TEXT = 'mode: ONE rate: 3 inner { names: "a" size: 9 strange: 1 } many { } odd { x: 1 } rate: 4 big: 1.5 modes: [A, C]'


def test_fields_that_do_not_fit_are_kept_with_line_and_reason() -> None:
    made = read(TEXT.replace(" odd", "\nodd"))
    assert made.modes == ("A",)
    told = {path: (extra.line, extra.reason) for path, extra in made.walk_extras()}
    assert told == {
        "odd": (2, "Outer has no field 'odd'"),
        "rate": (2, "Outer.rate is given more than once"),
        "big": (2, f"Outer.big: expected int64, a whole number from {-(2**63)} to {2**63 - 1}, not 1.5"),
        "modes": (2, "Outer.modes: expected one of A, B, not 'C'"),
        "inner.strange": (1, "Inner has no field 'strange'"),
    }  # fmt: skip


def test_text_to_message_to_text_is_the_identity() -> None:
    made = read(TEXT)
    again = read(format_fields(made.to_text()))
    assert again == made
    assert hash(again) == hash(made)
    assert format_fields(again.to_text()) == format_fields(made.to_text())


def test_unknown_fields_are_compared_without_their_order_and_lines() -> None:
    first, second = "x { a: 1 b: 2 }\n", "x { a: 1 b: 1 }\n"
    assert read(first + second) == read("\n\n" + second + "\n" + first)
    assert read(first) != read(second)
    assert read("x: 1") != read("x: 1.0")
    assert read("x: A") != read('x: "A"')
    assert read("") != read("x: 1")


def test_without_extras_drops_the_named_fields() -> None:
    assert [path for path, _ in read("x: 1 y: 2 y: 3").without_extras(["y"]).walk_extras()] == ["x"]


def test_messages_can_be_copied_and_pickled() -> None:
    made = read(TEXT)
    assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)
    assert [e.line for _, e in pickle.loads(pickle.dumps(made)).walk_extras()] == [
        e.line for _, e in made.walk_extras()
    ]


@pytest.mark.parametrize(
    ("written", "value"),
    [("inf", math.inf), ("-inf", -math.inf), ("1e39", 1e39), ("-2", -2.0), ("3f", 3.0), ("9" * 400, math.inf)],
)
def test_floats_accept_the_spellings_of_text_format(written: str, value: float) -> None:
    made = read(f"rate: {written}")
    assert made.rate == value
    assert read(format_fields(made.to_text())) == made


def test_nan_is_a_float() -> None:
    assert math.isnan(read("rate: nan").rate)


@pytest.mark.parametrize("value", ["1", "true", "t", "True"])
def test_bools_accept_the_spellings_of_text_format(value: str) -> None:
    assert ConvolutionParameter.from_text(parse(f"bias_term: {value}")).bias_term is True
    assert ConvolutionParameter.from_text(parse("bias_term: f")).bias_term is False


@pytest.mark.parametrize("value", ["2", '"true"', "yes", "1.0", "TRUE"])
def test_a_wrong_bool_is_kept_as_an_extra(value: str) -> None:
    made = ConvolutionParameter.from_text(parse(f"bias_term: {value}"))
    assert made.extras[0].reason.startswith("ConvolutionParameter.bias_term: expected true or false")


def test_layer_types_add_their_fields_to_the_layer() -> None:
    made = LayerParameter(pooling_param={"kernel_size": 3}, include={"phase": "TRAIN"}, param=[{"lr_mult": 2}, {}])
    assert made.fields["pooling_param"].number == PoolingParameter.number == 121
    assert made.include == (NetStateRule(phase="TRAIN"),)
    assert made.param == (ParamSpec(lr_mult=2), ParamSpec())


def test_two_layer_types_cannot_add_the_same_field() -> None:
    with pytest.raises(NetError, match="already has a field 'pooling_param'"):
        type("Again", (Message,), {}, field="pooling_param", number=121)
    assert LayerParameter.fields["pooling_param"].message is PoolingParameter


def test_words_are_not_accepted_as_strings() -> None:
    made = FillerParameter.from_text(parse("type: xavier"))
    assert made.type == "constant"
    assert isinstance(made.extras[0].value, Word)
