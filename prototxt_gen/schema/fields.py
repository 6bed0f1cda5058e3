"""Fields of messages: number, type, default, and the conversion and check of their values.

`uint32(2)` in a message's class statement declares a field; on an instance it reads as the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast, overload

from prototxt_gen.common.errors import nearest
from prototxt_gen.text import Word

T = TypeVar("T")
M = TypeVar("M")
"""A message class. Message itself is defined in `message.py`, which imports this module."""

_INT_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
_TRUE = {"true", "True", "t", "1"}
_FALSE = {"false", "False", "f", "0"}


class Field(Generic[T]):
    """One field of a message: its number, kind and default. On an instance it reads as the value."""

    __slots__ = ("default", "enum", "kind", "message", "name", "number", "repeated")

    def __init__(
        self,
        number: int,
        kind: str,
        default: T,
        *,
        enum: Mapping[str, int] | None = None,
        message: type[Any] | None = None,
        repeated: bool = False,
    ) -> None:
        self.number, self.kind, self.default = number, kind, default
        self.enum, self.message, self.repeated = enum, message, repeated
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Field[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: Any, owner: type) -> Field[T] | T:
        if instance is None:
            return self
        return cast(T, instance._values.get(self.name, self.default))

    def one(self, value: object) -> object:
        """Return `value` converted to one element of this field. Raises ValueError with the expected type."""
        if self.message is not None:
            return _as_message(self.message, value)
        if self.enum is not None:
            return _as_enum(self.enum, value)
        return _SCALARS[self.kind](value)

    def coerce(self, value: object) -> object:
        """Return `value` converted to the value of this field; a repeated field accepts a sequence or one element."""
        if not self.repeated:
            return self.one(value)
        elements = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        return tuple(self.one(element) for element in elements)


def _as_message(kind: type[Any], value: object) -> object:
    if isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        return kind(**value)
    raise ValueError(f"expected a {kind.proto} message")


def _as_enum(names: Mapping[str, int], value: object) -> str:
    if isinstance(value, str) and value in names:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        for name, number in names.items():
            if number == value:
                return name
    raise ValueError(f"expected one of {', '.join(names)}{nearest(str(value), names)}")


def _as_int(kind: str) -> Callable[[object], int]:
    low, high = _INT_RANGES[kind]

    def convert(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"expected {kind}, a whole number from {low} to {high}")
        return value

    return convert


def _as_float(value: object) -> float:
    """Return a float; minus zero becomes zero and every NaN the same object, so that messages can be compared."""
    word = isinstance(value, Word) and value.lower().lstrip("-") in ("inf", "infinity", "nan")
    if not word and (isinstance(value, (bool, str)) or not isinstance(value, (int, float))):
        raise ValueError("expected a number")
    try:
        number = float(value) + 0.0  # type: ignore[arg-type]
    except OverflowError:
        return math.copysign(math.inf, value)  # type: ignore[arg-type]
    return math.nan if math.isnan(number) else number


def as_bool(value: object) -> bool:
    """Return a bool for the spellings that protobuf accepts. Raises ValueError for others."""
    text = str(value)
    if isinstance(value, (bool, int, Word)) and text in _TRUE | _FALSE:
        return text in _TRUE
    raise ValueError("expected true or false")


def _as_string(value: object) -> str:
    if isinstance(value, str) and not isinstance(value, Word):
        return value
    raise ValueError("expected a string in quotes")


_SCALARS: dict[str, Callable[[object], object]] = {
    "int32": _as_int("int32"),
    "uint32": _as_int("uint32"),
    "int64": _as_int("int64"),
    "float": _as_float,
    "bool": as_bool,
    "string": _as_string,
}


def int32(number: int, default: int = 0) -> Field[int]:
    """Declare an int32 field with this field number."""
    return Field(number, "int32", default)


def uint32(number: int, default: int = 0) -> Field[int]:
    """Declare a uint32 field with this field number."""
    return Field(number, "uint32", default)


def int64(number: int, default: int = 0) -> Field[int]:
    """Declare an int64 field with this field number."""
    return Field(number, "int64", default)


def float32(number: int, default: float = 0.0) -> Field[float]:
    """Declare a float field with this field number."""
    return Field(number, "float", default)


def boolean(number: int, default: bool = False) -> Field[bool]:
    """Declare a bool field with this field number."""
    return Field(number, "bool", default)


def string(number: int, default: str = "") -> Field[str]:
    """Declare a string field with this field number."""
    return Field(number, "string", default)


def enum(number: int, *names: str, default: str | None = None, first: int = 0, **numbered: int) -> Field[str]:
    """Declare an enum; `names` have the numbers from `first` on, keyword arguments give more names with numbers."""
    table = {name: first + i for i, name in enumerate(names)} | numbered
    return Field(number, "enum", default or next(iter(table)), enum=table)


def message(number: int, kind: type[M]) -> Field[M]:
    """Declare a field that holds a message of class `kind`."""
    return Field(number, "message", kind(), message=kind)


def repeated(element: Field[T]) -> Field[tuple[T, ...]]:
    """Declare a repeated field whose elements are like the field `element`: `repeated(uint32(4))`."""
    return Field(element.number, element.kind, (), enum=element.enum, message=element.message, repeated=True)
