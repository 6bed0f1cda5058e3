"""Typed, frozen protobuf messages: the one schema that text, binary and pycaffe share.

A room declares its parameters as a class, field by field, with the names, numbers and defaults of caffe.proto:

    class PoolingParameter(Message, field="pooling_param", number=121):
        pool = enum(1, "MAX", "AVE", "STOCHASTIC")
        kernel_size = uint32(2)

Reading an attribute gives the value or its default, as in protobuf; `has` tells whether it was set. What a message's
schema does not know is never lost: it is kept in `extras`, with its line and the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from prototxt_gen.errors import NetError, nearest
from prototxt_gen.text import Field as TextField
from prototxt_gen.text import Value as TextValue
from prototxt_gen.text import Word

T = TypeVar("T")
M = TypeVar("M", bound="Message")

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
        message: type[Message] | None = None,
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
    def __get__(self, instance: Message, owner: type) -> T: ...
    def __get__(self, instance: Message | None, owner: type) -> Field[T] | T:
        if instance is None:
            return self
        return cast(T, instance._values.get(self.name, self.default))

    def one(self, value: object) -> object:
        """Return `value` as one element of this field; ValueError says what was expected instead."""
        if self.message is not None:
            return _as_message(self.message, value)
        if self.enum is not None:
            return _as_enum(self.enum, value)
        return _SCALARS[self.kind](value)

    def coerce(self, value: object) -> object:
        """Return `value` as this field holds it: a repeated field takes a sequence or a single element."""
        if not self.repeated:
            return self.one(value)
        many = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        return tuple(self.one(item) for item in many)


def _as_message(kind: type[Message], value: object) -> Message:
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
    if isinstance(value, Word) and value.lower() in ("inf", "infinity", "nan"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("expected a number")
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def as_bool(value: object) -> bool:
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
    return Field(number, "int32", default)


def uint32(number: int, default: int = 0) -> Field[int]:
    return Field(number, "uint32", default)


def int64(number: int, default: int = 0) -> Field[int]:
    return Field(number, "int64", default)


def float32(number: int, default: float = 0.0) -> Field[float]:
    return Field(number, "float", default)


def boolean(number: int, default: bool = False) -> Field[bool]:
    return Field(number, "bool", default)


def string(number: int, default: str = "") -> Field[str]:
    return Field(number, "string", default)


def enum(number: int, *names: str, default: str | None = None, first: int = 0, **numbered: int) -> Field[str]:
    """An enum field: names count from `first`; keyword arguments give names their own numbers."""
    table = {name: first + i for i, name in enumerate(names)} | numbered
    return Field(number, "enum", default or next(iter(table)), enum=table)


def message(number: int, kind: type[M]) -> Field[M]:
    return Field(number, "message", kind(), message=kind)


def repeated(one: Field[T]) -> Field[tuple[T, ...]]:
    return Field(one.number, one.kind, (), enum=one.enum, message=one.message, repeated=True)


@dataclass(frozen=True)
class Extra:
    """A field that the schema does not know, or whose value does not fit it, kept as it was written."""

    name: str
    value: TextValue = field(compare=False)
    reason: str = field(compare=False)
    line: int = field(default=0, compare=False)
    plain: object = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", _without_lines(self.value))


def _without_lines(value: TextValue) -> object:
    if isinstance(value, tuple):
        return tuple((f.name, _without_lines(f.value)) for f in value)
    return (type(value).__name__, value)


class Message:
    """A frozen protobuf message. Equal when the same fields are set to the same values, extras included."""

    proto: ClassVar[str]
    """The message's name in caffe.proto."""
    fields: ClassVar[dict[str, Field[Any]]] = {}
    field: ClassVar[str] = ""
    """The LayerParameter field that holds it, e.g. `pooling_param`; empty for messages inside others."""
    number: ClassVar[int] = 0
    """That field's number in LayerParameter, BVLC's unless only a fork has it; a Dialect may say otherwise."""

    __slots__ = ("_hash", "_values", "extras")
    _values: dict[str, Any]
    extras: tuple[Extra, ...]
    _hash: int | None

    def __init_subclass__(cls, field: str = "", number: int = 0, proto: str = "") -> None:
        own = {name: f for name, f in vars(cls).items() if isinstance(f, Field)}
        cls.fields = {**cls.fields, **own}
        cls.proto = proto or cls.__name__
        cls.field, cls.number = field, number
        if field:
            _add_layer_field(cls)

    def __init__(self, **values: object) -> None:
        self._fill({name: self._coerce(name, value) for name, value in values.items()}, ())

    def _coerce(self, name: str, value: object) -> object:
        known = self.fields.get(name)
        if known is None:
            raise NetError(_unknown(type(self), name))
        try:
            return known.coerce(value)
        except ValueError as error:
            raise NetError(f"{self.proto}.{name}: {error}, not {value!r}") from None

    def _fill(self, values: dict[str, Any], extras: tuple[Extra, ...]) -> None:
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "extras", extras)
        object.__setattr__(self, "_hash", None)

    @classmethod
    def _make(cls: type[M], values: dict[str, Any], extras: tuple[Extra, ...]) -> M:
        made = cls.__new__(cls)
        made._fill(values, extras)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self.proto} is frozen; use replace({name}=…)")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message) or self.proto != other.proto:
            return NotImplemented
        return self._values == other._values and sorted(self.extras, key=repr) == sorted(other.extras, key=repr)

    def __hash__(self) -> int:
        if self._hash is None:
            object.__setattr__(self, "_hash", hash((self.proto, frozenset(self._values.items()), len(self.extras))))
        return self._hash or 0

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"{type(self).__name__}({inside})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (type(self), self._values, self.extras))

    def has(self, name: str) -> bool:
        """Whether the field was set; a repeated field counts as set when it holds anything."""
        if name not in self.fields:
            raise KeyError(f"{self.proto} has no field {name!r}{nearest(name, self.fields)}")
        return name in self._values

    def set_fields(self) -> Iterator[tuple[str, Any]]:
        """Yield the fields that are set, in the order they were written."""
        yield from self._values.items()

    def replace(self: M, **values: object) -> M:
        """Return a copy with these fields set; None clears one."""
        changed = dict(self._values)
        for name, value in values.items():
            if value is None:
                changed.pop(name, None)
            else:
                changed[name] = self._coerce(name, value)
        return self._make(changed, self.extras)

    def without_extras(self: M, names: Collection[str]) -> M:
        """Return a copy without the unknown fields of these names."""
        return self._make(self._values, tuple(extra for extra in self.extras if extra.name not in names))

    def __bool__(self) -> bool:
        """Whether anything at all is set."""
        return bool(self._values or self.extras)

    def walk_extras(self, path: str = "") -> Iterator[tuple[str, Extra]]:
        """Yield (dotted path, extra) for every field here or below that the schema does not know."""
        for extra in self.extras:
            yield path + extra.name, extra
        for name, value in self._values.items():
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, Message):
                    yield from inner.walk_extras(f"{path}{name}.")

    @classmethod
    def from_text(cls: type[M], tree: Sequence[TextField]) -> M:
        """Type a parsed text message; what does not fit the schema goes to `extras`, nothing raises."""
        values: dict[str, Any] = {}
        extras: list[Extra] = []
        for name, value, line in tree:
            known = cls.fields.get(name)
            if known is None:
                reason = _unknown(cls, name)
            elif name in values and not known.repeated:
                reason = f"{cls.proto}.{name} is given more than once"
            else:
                try:
                    one = _from_text(known, value)
                    values[name] = (*values.get(name, ()), one) if known.repeated else one
                    continue
                except ValueError as error:
                    reason = f"{cls.proto}.{name}: {error}, not {_short(value)}"
            extras.append(Extra(name, value, reason, line))
        return cls._make(values, tuple(extras))

    def to_text(self) -> tuple[TextField, ...]:
        """Return the message as a text tree, set fields first, then the extras."""
        out = [
            TextField(name, _to_text(self.fields[name], item), 0)
            for name, value in self._values.items()
            for item in (value if self.fields[name].repeated else (value,))
        ]
        return (*out, *(TextField(extra.name, extra.value, 0) for extra in self.extras))


LAYER_FIELDS: dict[str, Field[Any]] = {}
"""The fields of LayerParameter: its own, and each `…_param` from the class statement of its message."""


def _add_layer_field(cls: type[Message]) -> None:
    if cls.field in LAYER_FIELDS:
        raise NetError(f"LayerParameter has a field {cls.field!r} already; {cls.__name__} cannot add another")
    LAYER_FIELDS[cls.field] = made = message(cls.number, cls)
    made.name = cls.field


def _restore(cls: type[Message], values: dict[str, Any], extras: tuple[Extra, ...]) -> Message:
    return cls._make(values, extras)


def _unknown(cls: type[Message], name: str) -> str:
    return _unknown_field(cls.proto, name, tuple(cls.fields))


@lru_cache(maxsize=1024)  # the search for the nearest name is slow, and forks repeat their fields in every layer
def _unknown_field(proto: str, name: str, known: tuple[str, ...]) -> str:
    return f"{proto} has no field {name!r}{nearest(name, known)}"


def _short(value: TextValue) -> str:
    if isinstance(value, tuple):
        return "a message"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _from_text(known: Field[Any], value: TextValue) -> object:
    if known.message is None:
        return known.one(value)
    if not isinstance(value, tuple):
        raise ValueError(f"expected a {known.message.proto} message in braces")
    return known.message.from_text(value)


def _to_text(known: Field[Any], value: Any) -> TextValue:
    if isinstance(value, Message):
        return value.to_text()
    if known.kind == "bool":
        return Word("true" if value else "false")
    if known.kind == "enum":
        return Word(value)
    if known.kind == "float" and math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return int(value)
    return cast(TextValue, value)
