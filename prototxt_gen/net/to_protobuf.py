"""Nets as protobuf messages: classes made from the layer types' schema, and what fills them.

Each dialect's classes live in a descriptor pool of their own, which never meets an imported pycaffe's, so both may
define `caffe.LayerParameter`. This is the only module that knows google.protobuf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from prototxt_gen import layers
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Net
from prototxt_gen.net.dialect_fields import unknown_fields
from prototxt_gen.schema.caffe_proto import BlobShape, LayerParameter, NetParameter
from prototxt_gen.schema.dialect import Dialect, Place
from prototxt_gen.schema.fields import as_bool
from prototxt_gen.schema.message import Field, Message
from prototxt_gen.text import Field as TextField
from prototxt_gen.text import Word

_KINDS = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "int32": _KINDS.TYPE_INT32,
    "uint32": _KINDS.TYPE_UINT32,
    "int64": _KINDS.TYPE_INT64,
    "float": _KINDS.TYPE_FLOAT,
    "bool": _KINDS.TYPE_BOOL,
    "string": _KINDS.TYPE_STRING,
    "enum": _KINDS.TYPE_ENUM,
    "message": _KINDS.TYPE_MESSAGE,
}
_FIRST_FREE = 10_000
"""Numbers from here on are given, in the superset schema, to fields whose own number another field has."""


@cache
def classes(dialect: Dialect | None) -> Mapping[str, Any]:
    """Return protobuf classes by message name, `NetParameter` among them, from a pool that nothing else shares.

    None stands for the superset of all, for text.
    """
    layers.all_layer_types()
    file = descriptor_pb2.FileDescriptorProto(name=f"prototxt_gen/{dialect.name if dialect else 'text'}.proto")
    file.package, file.syntax = "caffe", "proto2"
    for kind, message in _reachable(dialect).values():
        made = file.message_type.add(name=kind.proto)
        for known, place in _places(dialect, kind, message):
            _add_field(made, kind.proto, place.number, known)
    _add_structure(file)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [m.name for m in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in names}


def _reachable(dialect: Dialect | None) -> dict[str, tuple[type[Message], str]]:
    """Return the messages that a net may hold by name, each with its name in the fork."""
    found: dict[str, tuple[type[Message], str]] = {}
    waiting: list[tuple[type[Message], str]] = [
        (kind, kind.proto) for kind in (NetParameter, LayerParameter, BlobShape)
    ]
    while waiting:
        kind, message = waiting.pop()
        if kind.proto not in found:
            found[kind.proto] = kind, message
            places = _places(dialect, kind, message)
            waiting += [(known.message, place.message) for known, place in places if known.message is not None]
    return found


def _places(dialect: Dialect | None, kind: type[Message], message: str) -> Iterator[tuple[Field[Any], Place]]:
    """Yield the fields of a message with their places in a fork; in the superset, fields that collide get free ones."""
    if dialect is not None:
        yield from dialect.places(kind, message)
        return
    taken = {1, 2, 3, 4} if kind is LayerParameter else set()
    for count, known in enumerate(kind.fields.values()):
        number = known.number if known.number and known.number not in taken else _FIRST_FREE + count
        taken.add(number)
        yield known, Place(number, known.message.proto if known.message else "")


def _add_field(made: descriptor_pb2.DescriptorProto, owner: str, number: int, known: Field[Any]) -> None:
    added = made.field.add(name=known.name, number=number, type=_TYPES[known.kind])
    added.label = _KINDS.LABEL_REPEATED if known.repeated else _KINDS.LABEL_OPTIONAL
    if known.message is not None:
        added.type_name = f".caffe.{known.message.proto}"
    if known.enum is not None:
        added.type_name = _add_enum(made, owner, known.name, known.enum)


def _add_enum(made: descriptor_pb2.DescriptorProto, owner: str, name: str, values: Mapping[str, int]) -> str:
    """Add an enum in a message of its own (enums side by side may not share value names); return its full name."""
    scope = made.nested_type.add(name=f"{name}_scope")
    enum = scope.enum_type.add(name="Value")
    if len(set(values.values())) < len(values):
        enum.options.allow_alias = True
    for value, number in values.items():
        enum.value.add(name=value, number=number)
    return f".caffe.{owner}.{scope.name}.Value"


def _add_structure(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Add what a Net holds in structure rather than in messages: names, inputs, layers, bottoms and tops."""
    by_name = {m.name: m for m in file.message_type}
    net, layer = by_name["NetParameter"], by_name["LayerParameter"]
    for owner, name, number, repeated in (
        (layer, "name", 1, False),
        (layer, "type", 2, False),
        (layer, "bottom", 3, True),
        (layer, "top", 4, True),
        (net, "name", 1, False),
        (net, "input", 3, True),
    ):
        added = owner.field.add(name=name, number=number, type=_KINDS.TYPE_STRING)
        added.label = _KINDS.LABEL_REPEATED if repeated else _KINDS.LABEL_OPTIONAL
    for name, number, type_name in (("input_shape", 8, ".caffe.BlobShape"), ("layer", 100, ".caffe.LayerParameter")):
        added = net.field.add(name=name, number=number, type=_KINDS.TYPE_MESSAGE, type_name=type_name)
        added.label = _KINDS.LABEL_REPEATED


def to_protobuf(net: Net, dialect: Dialect | None = None) -> Any:
    """Return the net as a protobuf NetParameter, its extras left out.

    Raises UnsupportedError where the net says something for which the fork has no field.
    """
    if dialect is not None:
        _check_known(net, dialect)
    made = classes(dialect)["NetParameter"](name=_utf8(net.name))
    _fill(made, net.params)
    for value in net.inputs:
        made.input.append(_utf8(value.blob))
        if value.shape is not None:
            made.input_shape.add().dim.extend(value.shape)
    for layer in net.layers:
        _fill_layer(made.layer.add(), layer)
    return made


def _check_known(net: Net, dialect: Dialect) -> None:
    lacking = sorted({path for _, path in unknown_fields(dialect, net)})
    if lacking:
        raise UnsupportedError(f"{net.source or net.name}: {dialect.source} has no field {', '.join(lacking)}")


def _fill_layer(made: Any, layer: Layer) -> None:
    made.name, made.type = _utf8(layer.name), _utf8(layer.type)
    made.bottom.extend([_utf8(value.blob) for value in layer.bottoms])
    made.top.extend([_utf8(value.blob) for value in layer.tops])
    _fill(made, layer.params)


def _utf8(value: str) -> str:
    """Return a string that protobuf takes: bytes that are not UTF-8, which Caffe lets pass, are spelled as escapes."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _fill(made: Any, message: Message) -> None:
    """Fill a protobuf message with what is set, as far as its fork has the fields."""
    has = made.DESCRIPTOR.fields_by_name
    for name, value in message.set_fields():
        known = message.fields[name]
        if name not in has:
            continue
        if known.message is not None:
            for one in value if known.repeated else (value,):
                target = getattr(made, name).add() if known.repeated else getattr(made, name)
                target.SetInParent()
                _fill(target, one)
        elif known.repeated:
            getattr(made, name).extend([_scalar(known, one) for one in value])
        else:
            setattr(made, name, _scalar(known, value))


def _scalar(known: Field[Any], value: Any) -> Any:
    if known.enum is not None:
        return known.enum[value]
    return _utf8(value) if known.kind == "string" else value


def fill_from_text(made: Any, tree: Sequence[TextField]) -> int:
    """Fill a protobuf message from a text tree; return how many fields it has no place for, or not for their value."""
    known = _setters(made.DESCRIPTOR)
    unfit = 0
    for name, value, _ in tree:
        setter = known.get(name)
        if setter is None or (not setter.repeated and made.HasField(name)):
            unfit += 1
        elif setter.is_message and isinstance(value, tuple):
            unfit += fill_from_text(setter.place(made), value)
        else:
            unfit += not setter.fits(made, value)
    return unfit


@dataclass(frozen=True)
class _Setter:
    """How one field of a protobuf message is set from text; protobuf itself checks types and ranges."""

    name: str
    is_message: bool
    repeated: bool
    convert: Callable[[Any], Any]

    def place(self, made: Any) -> Any:
        """Return the message to fill: a new element, or the one there is, marked as set."""
        held = getattr(made, self.name)
        if self.repeated:
            return held.add()
        held.SetInParent()
        return held

    def fits(self, made: Any, value: Any) -> bool:
        """Set the field, or return False where protobuf takes no such value."""
        try:
            converted = self.convert(value)
            if self.repeated:
                getattr(made, self.name).append(converted)
            else:
                setattr(made, self.name, converted)
        except (TypeError, ValueError, KeyError, AttributeError):
            return False
        return True


@cache
def _setters(descriptor: Any) -> dict[str, _Setter]:
    return {
        known.name: _Setter(known.name, known.message_type is not None, known.is_repeated, _converter(known))
        for known in descriptor.fields
    }


def _converter(known: Any) -> Callable[[Any], Any]:
    """Return what turns a text scalar into the value protobuf takes."""
    if known.enum_type is not None:
        numbers = {value.name: value.number for value in known.enum_type.values}
        return lambda value: numbers[value] if isinstance(value, str) else value
    if known.cpp_type == known.CPPTYPE_BOOL:
        return as_bool
    if known.cpp_type == known.CPPTYPE_STRING:
        return _quoted
    return _number if known.cpp_type == known.CPPTYPE_FLOAT else lambda value: value


def _quoted(value: Any) -> str:
    if isinstance(value, Word):
        raise TypeError("a string is expected in quotes")
    return _utf8(value)


def _number(value: Any) -> float:
    if isinstance(value, str) and not isinstance(value, Word):
        raise TypeError("a number is expected without quotes")
    return float(value)


def encoded_params(layer: Layer, dialect: Dialect) -> dict[int, bytes]:
    """Return the layer's parameter messages serialised, by their numbers in a fork; what it lacks is left out."""
    known = classes(dialect)
    found: dict[int, bytes] = {}
    for name, value in layer.params.set_fields():
        number = dialect.number(name)
        if number is not None and isinstance(value, Message):
            made = known[value.proto]()
            _fill(made, value)
            found[number] = made.SerializeToString(deterministic=True)
    return found
