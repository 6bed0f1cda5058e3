"""Types of the tree of a parsed prototxt: a Field has a name and a value, which is a scalar or a tuple of Fields."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Word(str):
    """A scalar without quotes that is not a number: an enum value, true, false, inf or nan."""

    __slots__ = ()


class Field(NamedTuple):
    """One `name: value` or `name { ... }`. `line` is the line where it begins, counted from 1."""

    name: str
    value: Value
    line: int


Scalar: TypeAlias = "int | float | str | Word"
Value: TypeAlias = "Scalar | tuple[Field, ...]"
