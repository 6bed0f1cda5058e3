"""The tree of a prototxt: fields, which are named values, some of which are messages, which are fields."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Word(str):
    """A scalar without quotes that is no number: an enum value, true, false, inf or nan."""

    __slots__ = ()


class Field(NamedTuple):
    """One `name: value` or `name { ... }`. `line`, from 1, is where it begins."""

    name: str
    value: Value
    line: int


Scalar: TypeAlias = "int | float | str | Word"
Value: TypeAlias = "Scalar | tuple[Field, ...]"
