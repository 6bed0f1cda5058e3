"""Text format: scalars, structures, error messages, encodings, and the printing of values."""

from __future__ import annotations

import gc
import math
import re
from typing import Any

import pytest

from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.text import MAX_DEPTH, Field, Value, Word, decode, format_fields, format_scalar, parse, parser


def data(fields: tuple[Field, ...]) -> list[Any]:
    """What fields say, without their lines, and with what `==` between them would not see."""
    return [
        (name, data(value) if isinstance(value, tuple) else (type(value), repr(value))) for name, value, _ in fields
    ]


def slowly(text: str | bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Field, ...]:
    """Parse with an expression for the common shapes that knows none."""
    with monkeypatch.context() as patch:
        patch.setattr(parser, "_COMMON", re.compile(".|()()()()", re.S))
        return parse(text)


SCALARS: list[tuple[str, Value]] = [
    ("0", 0),
    ("12", 12),
    ("-12", -12),
    ("- # minus\n 12", -12),
    ("0x1F", 31),
    ("-0xff", -255),
    ("017", 15),
    ("-010", -8),
    ("18446744073709551615", 2**64 - 1),
    ("99999999999999999999", 99999999999999999999),
    ("1.", 1.0),
    (".5", 0.5),
    ("-.5", -0.5),
    ("1e-3", 0.001),
    ("1E+5", 100000.0),
    ("1f", 1.0),
    ("1.5F", 1.5),
    ("0f", 0.0),
    ("-inf", -math.inf),
    ("- Infinity", -math.inf),
    ("-1e400", -math.inf),
    ("1e400", Word("inf")),
    ("9" * 400, Word("inf")),
    ("inf", Word("inf")),
    ("NaN", Word("NaN")),
    ("-nan", Word("nan")),
    ("true", Word("true")),
    ("MAX_POOL2", Word("MAX_POOL2")),
    ('""', ""),
    ('"a#b//c/*d*/ {"', "a#b//c/*d*/ {"),
    ("'say \"x\"'", 'say "x"'),
    ('"a" "b"\'c\' # and\n "d"', "abcd"),
    (r'"\a\b\f\n\r\t\v\?\\\'\""', "\a\b\f\n\r\t\v?\\'\""),
    (r'"\x41\X4a\101\0\1234"', "AJA\0S4"),
    (r'"\u4e2d\U0001F600"', "中😀"),
    (r'"\ud83d\ude00"', "😀"),
    (r'"\ud83d"', "\udced\udca0\udcbd"),
    (r'"\xe4\xb8" "\xad中"', "中中"),
    (r'"\xff\777"', "\udcff\udcff"),
    ('"中\r文"', "中\r文"),
]


@pytest.mark.parametrize(("written", "value"), SCALARS)
def test_scalars(written: str, value: Value, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"# one\n  a :{written}; b: 1"
    assert data(parse(text)) == data((Field("a", value, 2), Field("b", 1, 2)))
    assert slowly(text, monkeypatch) == parse(text)


def m(name: str, *fields: Field, line: int = 1) -> Field:
    return Field(name, fields, line)


a1, a2, b1 = Field("a", 1, 1), Field("a", 2, 1), Field("b", 1, 1)
STRUCTURES: list[tuple[str, tuple[Field, ...]]] = [
    ("", ()),
    (" \r\n\t# nothing", ()),
    ("\ufeffa:1", (a1,)),
    ("a:1,b:1", (a1, b1)),
    ("a:1;b:1", (a1, b1)),
    ("a:1 /* , */ , // ;\n", (a1,)),
    ('s:"x"b:1', (Field("s", "x", 1), b1)),
    ("a:1[x.y]:2", (a1, Field("[x.y]", 2, 1))),
    ("[ x . # of\n y ] {}", (m("[x.y]"),)),
    ("[type.googleapis.com/a.B] { a: 1 }", (m("[type.googleapis.com/a.B]", a1),)),
    ("m{}", (m("m"),)),
    ("m:{a:1}", (m("m", a1),)),
    ("m<a:1>,b:1", (m("m", a1), b1)),
    ("m: < n {a:1;} >;", (m("m", m("n", a1)),)),
    ("m # {\n{ # }\n} # ,\n, b:1", (m("m"), Field("b", 1, 4))),
    ("/**/m/***/:/* * / */{}//", (m("m"),)),
    ("a: []; m []", ()),
    ("a: [1]", (a1,)),
    ("a: [1, # one\n2], b: 1", (a1, Field("a", 2, 2), Field("b", 1, 2))),
    ("s: ['x' \"y\", 'z'] s: FOO", (Field("s", "xy", 1), Field("s", "z", 1), Field("s", Word("FOO"), 1))),
    ("m [{}, # next\n<a:1>] b: 1", (m("m"), m("m", Field("a", 1, 2), line=2), Field("b", 1, 2))),
    ("m: [ { m [{a:1},{a:2}] } ],", (m("m", m("m", a1), m("m", a2)),)),
    ("\n\nm {\n\n a:\n 1\n}\nb\n:1", (m("m", Field("a", 1, 5), line=3), Field("b", 1, 8))),
]


@pytest.mark.parametrize(("text", "fields"), STRUCTURES)
def test_structures(text: str, fields: tuple[Field, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(text) == fields
    assert slowly(text, monkeypatch) == fields


ERRORS = [
    ("layer {}\n}", 2, "line 2: '}' closes nothing"),
    ("a: 1\nm {", 2, "the file ends inside m {, opened in line 2"),
    ("m [{}, {", 1, "the file ends inside m {, opened in line 1"),
    ("m {\n >", 2, "line 2: '}' is expected to close m { of line 1, not '>'"),
    ("m [{}\n{", 2, "line 2: ',' or ']' is expected in the list m, not '{'"),
    ("m [{},\n 1]", 2, "line 2: '{' is expected after ',' in the list m, not '1'"),
    ("m [1]", 1, "line 1: ':' is expected between m and its list of scalars"),
    ("a: [1,\n]", 2, "line 2: a value is expected after '[' or ',' in the list a, not ']'"),
    ("a: [[1]]", 1, "line 1: a value is expected after '[' or ',' in the list a, not '['"),
    ("a: [1", 1, "line 1: ',' or ']' is expected in the list a, not the end of the file"),
    ("a\n1", 2, "line 2: ':' or '{' is expected after a, not '1'"),
    ("a:\n}", 2, "line 2: a value is expected after a:, not '}'"),
    ("a: -'x'", 1, 'line 1: a value is expected after -, not "\'"'),
    ("a: -FOO", 1, "line 1: -FOO is neither a number of protobuf nor a word"),
    ("a: 1 b: 1c", 1, "line 1: 1c is neither a number of protobuf nor a word"),
    ("a: 09", 1, "line 1: 09 is neither a number of protobuf nor a word"),
    ("a: 0x10000000000000000", 1, "line 1: 0x10000000000000000 is neither a number of protobuf nor a word"),
    ("a: " + "x-" * 50, 1, "line 1: " + "x-" * 28 + "x... is neither a number of protobuf nor a word"),
    ("a: 1e", 1, "line 1: 1e is neither a number of protobuf nor a word"),
    ("a: +1", 1, "line 1: a value is expected after a:, not '+'"),
    ("\n\na: 'x\n'", 3, "line 3: a string has no closing quote"),
    ('a: "x\\"', 1, "line 1: a string has no closing quote"),
    (r'a: "C:\data"', 1, r"line 1: \d in a string is not an escape sequence; write \\ for a backslash"),
    (r'a: "\U00110000"', 1, r"line 1: \U in a string is not an escape sequence; write \\ for a backslash"),
    ("a: 1\n/* b", 2, "line 2: a comment has no closing */"),
    ("a: 1\n b\0", 2, "line 2: the file has a NUL byte, so it is not a text file"),
    ("a: 1,,", 1, "line 1: a field name is expected, not ','"),
    ("a: 1\n名: 1", 2, "line 2: a field name is expected, not '名'"),
    ("a: 1 \x01", 1, "line 1: a field name is expected, not '\\x01'"),
    ("[a.1]: 1", 1, "line 1: a field name is expected, not '['"),
    ("a: '\ud800'", 1, "line 1: '\\ud800' is a lone surrogate, not a character"),
    ("m{" * 101, 1, "line 1: more than 100 messages inside each other"),
]


@pytest.mark.parametrize(("text", "line", "message"), ERRORS)
def test_errors_name_the_line_and_what_is_wrong(
    text: str, line: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for read in (parse, lambda text: slowly(text, monkeypatch)):
        with pytest.raises(PrototxtError) as raised:
            read(text)
        assert (str(raised.value), raised.value.line) == (message, line)


@pytest.mark.parametrize("opener", ["m{", "m [{"])
def test_messages_nest_as_deep_as_allowed(opener: str) -> None:
    closer = opener.replace("m", "").replace(" ", "")[::-1].translate(str.maketrans("[{", "]}"))
    fields = parse(opener * MAX_DEPTH + closer * MAX_DEPTH)
    for _ in range(MAX_DEPTH):
        assert [field.name for field in fields] == ["m"]
        (_, fields, _) = fields[0]  # type: ignore[assignment]
    assert fields == ()


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "# 中文 é"),
        ("utf-8-sig", "# 中文"),
        ("utf-16", "# 中文"),
        ("gb18030", "# 卷积层"),
        ("latin-1", "# caf\xe9 \xa0\xff"),
    ],
)
def test_decode(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_a_wrong_byte_order_mark_is_an_error() -> None:
    assert decode(b"\xfe\xff\x00a") == "a"
    with pytest.raises(PrototxtError, match="UTF-16"):
        decode(b"\xff\xfea")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (-3, "-3"),
        (1.0, "1.0"),
        (1e-05, "1e-05"),
        (0.1, "0.1"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (Word("AVE"), "AVE"),
        ("AVE", '"AVE"'),
        ('a"b\\\n\r\t\x01', r'"a\"b\\\n\r\t\001"'),
        ("中\udcff\u2028", r'"中\377\342\200\250"'),
    ],
)
def test_format_scalar(value: int | float | str, written: str) -> None:
    assert format_scalar(value) == written


def test_writing_a_lone_surrogate_is_an_error() -> None:
    with pytest.raises(PrototxtError, match="a lone surrogate, not a character"):
        format_scalar("\ud800")


def test_format_fields_writes_one_field_per_line() -> None:
    assert format_fields(parse("a:[1,'x']m<n{}>"), indent=1) == '  a: 1\n  a: "x"\n  m {\n    n {\n    }\n  }\n'


def test_the_garbage_collector_stays_on_or_off() -> None:
    assert gc.isenabled()
    parse("a: 1")
    with pytest.raises(PrototxtError):
        parse("}")
    assert gc.isenabled()
