"""Message: base class of typed, frozen protobuf messages, which are the common schema for text and binary files.

A layer type declares its parameters as a class, field by field, with the names, numbers and defaults of caffe.proto:

    class PoolingParameter(Message, field="pooling_param", number=121):
        pool = enum(1, "MAX", "AVE", "STOCHASTIC")
        kernel_size = uint32(2)

Reading an attribute gives the value or its default, as in protobuf; `has` returns whether it was set. Fields that are
not in the schema are kept in `extras`, with their line and the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, TypeVar, cast

from prototxt_gen.common.errors import NetError, nearest
from prototxt_gen.schema.fields import Field, boolean, enum, float32, int32, int64, message, repeated, string, uint32
from prototxt_gen.text import Field as TextField
from prototxt_gen.text import Value as TextValue
from prototxt_gen.text import Word

M = TypeVar("M", bound="Message")
__all__ = [
    "LAYER_FIELDS", "Extra", "Field", "Message",
    "boolean", "enum", "float32", "int32", "int64", "message", "repeated", "string", "uint32",
]  # fmt: skip


@dataclass(frozen=True)
class Extra:
    """A field that is not in the schema, or whose value does not fit the schema, kept as it was written."""

    name: str
    value: TextValue = field(compare=False)
    reason: str = field(compare=False)
    line: int = field(default=0, compare=False)
    plain: object = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", _without_lines(self.value))


def _sorted(extras: Sequence[Extra]) -> list[Extra]:
    return sorted(extras, key=lambda extra: (extra.name, repr(extra.plain)))


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
    """The number of that field in LayerParameter: BVLC's, or a fork's if BVLC lacks it; a Dialect may have another."""

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
        return self._values == other._values and _sorted(self.extras) == _sorted(other.extras)

    def __hash__(self) -> int:
        if self._hash is None:
            object.__setattr__(
                self, "_hash", hash((self.proto, frozenset(self._values.items()), frozenset(self.extras)))
            )
        return self._hash or 0

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"{type(self).__name__}({inside})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (type(self), self._values, self.extras))

    def has(self, name: str) -> bool:
        """Return whether the field is set; a repeated field is set if it has elements. Raises KeyError if unknown."""
        if name not in self.fields:
            raise KeyError(f"{self.proto} has no field {name!r}{nearest(name, self.fields)}")
        return name in self._values

    def set_fields(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of the fields that are set, in the order written."""
        yield from self._values.items()

    def replace(self: M, **values: object) -> M:
        """Return a copy with these fields set; a value of None clears the field."""
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
        """Return whether any field is set."""
        return bool(self._values or self.extras)

    def walk_extras(self, path: str = "") -> Iterator[tuple[str, Extra]]:
        """Yield (dotted path, extra) for every extra of this message and its inner messages."""
        for extra in self.extras:
            yield path + extra.name, extra
        for name, value in self._values.items():
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, Message):
                    yield from inner.walk_extras(f"{path}{name}.")

    @classmethod
    def from_text(cls: type[M], tree: Sequence[TextField]) -> M:
        """Return the message of a parsed text; fields that do not fit the schema go to `extras`. Raises nothing."""
        values: dict[str, Any] = {}
        extras: list[Extra] = []
        repeated_values: dict[str, list[object]] = {}  # lists, as appending to tuples would take quadratic time
        for name, value, line in tree:
            known = cls.fields.get(name)
            if known is None:
                reason = _unknown(cls, name)
            elif name in values and not known.repeated:
                reason = f"{cls.proto}.{name} is given more than once"
            else:
                try:
                    typed = _from_text(known, value)
                    if known.repeated:
                        values[name] = repeated_values.setdefault(name, [])
                        repeated_values[name].append(typed)
                    else:
                        values[name] = typed
                    continue
                except ValueError as error:
                    reason = f"{cls.proto}.{name}: {error}, not {_short(value)}"
            extras.append(Extra(name, value, reason, line))
        values.update((name, tuple(elements)) for name, elements in repeated_values.items())
        return cls._make(values, tuple(extras))

    def to_text(self) -> tuple[TextField, ...]:
        """Return the message as a text tree: the set fields, then the extras."""
        out = [
            TextField(name, _to_text(self.fields[name], item), 0)
            for name, value in self._values.items()
            for item in (value if self.fields[name].repeated else (value,))
        ]
        return (*out, *(TextField(extra.name, extra.value, 0) for extra in self.extras))


LAYER_FIELDS: dict[str, Field[Any]] = {}
"""The fields of LayerParameter: its own, and a `…_param` for each parameter class of the layer types."""


def _add_layer_field(cls: type[Message]) -> None:
    if cls.field in LAYER_FIELDS:
        raise NetError(f"LayerParameter already has a field {cls.field!r}; {cls.__name__} cannot add it again")
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
    if known.kind == "float" and abs(value) < 1e15 and value == int(value):
        return int(value)
    return cast(TextValue, value)
