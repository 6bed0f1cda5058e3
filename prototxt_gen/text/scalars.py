"""Conversion of scalar values between text and Python: numbers, words, and strings with escape sequences."""

from __future__ import annotations

import re
from math import inf
from sys import float_info

from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.text.tree import Scalar, Word

_WORD = re.compile(r"[A-Za-z_]\w*", re.A)
_INTEGER = re.compile(r"-?(?:(?P<decimal>0|[1-9][0-9]*)|0[xX](?P<hex>[0-9a-fA-F]+)|0(?P<octal>[0-7]+))")
_FLOAT = re.compile(r"(-?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][+-]?[0-9]+)?)[fF]?")
_NOT_FINITE = re.compile(r"(-(?:inf|infinity|nan))", re.I)
_HEX = "[0-9a-fA-F]"
_ESCAPE = re.compile(
    rf"\\(?:(?P<octal>[0-7]{{1,3}})|[xX](?P<hex>{_HEX}{{1,2}})|(?P<letter>[abfnrtv\\?'\"]))"
    rf"|(?P<unicode>(?:\\u{_HEX}{{4}}|\\U00(?:0{_HEX}|10){_HEX}{{4}})+)|(?P<bad>\\.)".encode()
)
_SPECIAL = re.compile(r'["\\]')
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}
_LETTERS = dict(zip(b"abfnrtv\\?'\"", b"\a\b\f\n\r\t\v\\?'\"", strict=True))


class Scalars(dict[str, "Scalar | None"]):
    """Cache of scalar values by their spelling; the value is None if the spelling is not a scalar."""

    def __missing__(self, written: str) -> Scalar | None:
        value = written[1:-1] if written[0] in "\"'" else _unquoted(written)
        self[written] = value
        return value


def _unquoted(written: str) -> Scalar | None:
    if _WORD.fullmatch(written):
        return Word(written)
    if match := _INTEGER.fullmatch(written):
        return _integer(match)
    match = _FLOAT.fullmatch(written) or _NOT_FINITE.fullmatch(written)
    return _float(match[1]) if match else None


def _integer(match: re.Match[str]) -> Scalar | None:
    """Return the int, or None for hex and octal beyond 64 bits. Decimals may be longer, as they may be for a float."""
    kind, digits = match.lastgroup, match[match.lastgroup or 0]
    if kind == "decimal":
        return int(match[0]) if len(digits) <= float_info.max_10_exp else _float(match[0])
    size = int(digits, 16 if kind == "hex" else 8)
    return None if size >> 64 else -size if match[0][0] == "-" else size


def _float(written: str) -> Scalar:
    value = float(written)
    return value if value < inf else Word("inf" if value > 0 else "nan")


def unescaped(body: str) -> bytes:
    """Return the bytes of the text between two quotes. Raises ValueError with the text of a wrong escape sequence."""
    data = body.encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(_bytes_of_escape, data) if b"\\" in data else data


def _bytes_of_escape(escape: re.Match[bytes]) -> bytes:
    """Return the bytes of an escape sequence. Raises ValueError with the sequence if it is not valid."""
    kind, digits = escape.lastgroup, escape[escape.lastgroup or 0]
    if kind == "letter":
        return bytes([_LETTERS[digits[0]]])
    if kind == "unicode":  # several at once, as a UTF-16 surrogate pair is one character
        halves = "".join(chr(int(code, 16)) for code in re.split(r"\\[uU]", digits.decode())[1:])
        whole = halves.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return whole.encode("utf-8", "surrogatepass")
    if kind == "bad":
        raise ValueError(digits.decode(errors="replace"))
    return bytes([int(digits, 8 if kind == "octal" else 16) & 0xFF])


def format_scalar(value: Scalar) -> str:
    """Return the text of a scalar: strings quoted and escaped, floats in their shortest form, Words without quotes."""
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"' if value.isprintable() and not _SPECIAL.search(value) else f'"{_escaped(value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    return float.__repr__(value) if isinstance(value, float) else str(int(value))


def _escaped(value: str) -> str:
    return "".join(c if c.isprintable() and c not in '"\\' else _escape(c) for c in value)


def _escape(character: str) -> str:
    if short := _SHORT.get(character):
        return short
    try:
        return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise PrototxtError(f"{character!r} in a string is a lone surrogate, not a character") from None
