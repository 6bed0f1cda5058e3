"""Conversion of nets to protobuf messages, with message classes built from the parameter classes of the layer types.

Each dialect has its own descriptor pool, separate from that of an imported pycaffe, so both may define
`caffe.LayerParameter`. This is the only module that imports google.protobuf.
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
from prototxt_gen.net.dialect_fields import fields_missing_in_dialect
from prototxt_gen.schema.caffe_proto import BlobShape, LayerParameter, NetParameter
from prototxt_gen.schema.dialect import Dialect, ForkField
from prototxt_gen.schema.fields import as_bool
from prototxt_gen.schema.message import Field, Message
from prototxt_gen.text import Field as TextField
from prototxt_gen.text import Word

_PROTO = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "int32": _PROTO.TYPE_INT32,
    "uint32": _PROTO.TYPE_UINT32,
    "int64": _PROTO.TYPE_INT64,
    "float": _PROTO.TYPE_FLOAT,
    "bool": _PROTO.TYPE_BOOL,
    "string": _PROTO.TYPE_STRING,
    "enum": _PROTO.TYPE_ENUM,
    "message": _PROTO.TYPE_MESSAGE,
}
_FIRST_SUBSTITUTE_NUMBER = 10_000
"""First number for fields of the superset schema whose own number is already used by another field."""


@cache
def protobuf_classes(dialect: Dialect | None) -> Mapping[str, Any]:
    """Return the protobuf classes of a dialect by message name (`NetParameter`, `LayerParameter`, …).

    None stands for the superset of all dialects, which is used for text.
    """
    layers.all_layer_types()
    file = descriptor_pb2.FileDescriptorProto(name=f"prototxt_gen/{dialect.name if dialect else 'text'}.proto")
    file.package, file.syntax = "caffe", "proto2"
    for kind, message in _reachable_messages(dialect).values():
        descriptor = file.message_type.add(name=kind.proto)
        for known, dialect_field in _numbered_fields(dialect, kind, message):
            _add_field(descriptor, kind.proto, dialect_field.number, known)
    _add_structure(file)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [m.name for m in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in names}


def _reachable_messages(dialect: Dialect | None) -> dict[str, tuple[type[Message], str]]:
    """Return all messages that a net may contain, by name, each with its name in the dialect."""
    found: dict[str, tuple[type[Message], str]] = {}
    waiting: list[tuple[type[Message], str]] = [
        (kind, kind.proto) for kind in (NetParameter, LayerParameter, BlobShape)
    ]
    while waiting:
        kind, message = waiting.pop()
        if kind.proto not in found:
            found[kind.proto] = kind, message
            fields = _numbered_fields(dialect, kind, message)
            waiting += [(known.message, field.message) for known, field in fields if known.message is not None]
    return found


def _numbered_fields(
    dialect: Dialect | None, kind: type[Message], message: str
) -> Iterator[tuple[Field[Any], ForkField]]:
    """Yield the fields of a message with their numbers in the dialect; in the superset, numbers taken are replaced."""
    if dialect is not None:
        yield from dialect.numbered_fields(kind, message)
        return
    taken = {1, 2, 3, 4} if kind is LayerParameter else set()
    for count, known in enumerate(kind.fields.values()):
        number = known.number if known.number and known.number not in taken else _FIRST_SUBSTITUTE_NUMBER + count
        taken.add(number)
        yield known, ForkField(number, known.message.proto if known.message else "")


def _add_field(descriptor: descriptor_pb2.DescriptorProto, owner: str, number: int, known: Field[Any]) -> None:
    added = descriptor.field.add(name=known.name, number=number, type=_TYPES[known.kind])
    added.label = _PROTO.LABEL_REPEATED if known.repeated else _PROTO.LABEL_OPTIONAL
    if known.message is not None:
        added.type_name = f".caffe.{known.message.proto}"
    if known.enum is not None:
        added.type_name = _add_enum(descriptor, owner, known.name, known.enum)


def _add_enum(descriptor: descriptor_pb2.DescriptorProto, owner: str, name: str, values: Mapping[str, int]) -> str:
    """Add an enum and return its full name. A message wraps it, as enums of one scope cannot share value names."""
    scope = descriptor.nested_type.add(name=f"{name}_scope")
    enum = scope.enum_type.add(name="Value")
    if len(set(values.values())) < len(values):
        enum.options.allow_alias = True
    for value, number in values.items():
        enum.value.add(name=value, number=number)
    return f".caffe.{owner}.{scope.name}.Value"


def _add_structure(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Add the fields that a Net stores as attributes instead of messages: names, inputs, layers, bottoms and tops."""
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
        added = owner.field.add(name=name, number=number, type=_PROTO.TYPE_STRING)
        added.label = _PROTO.LABEL_REPEATED if repeated else _PROTO.LABEL_OPTIONAL
    for name, number, type_name in (("input_shape", 8, ".caffe.BlobShape"), ("layer", 100, ".caffe.LayerParameter")):
        added = net.field.add(name=name, number=number, type=_PROTO.TYPE_MESSAGE, type_name=type_name)
        added.label = _PROTO.LABEL_REPEATED


def to_protobuf(net: Net, dialect: Dialect | None = None) -> Any:
    """Return the net as a protobuf NetParameter, without its extras (unknown fields).

    Raises UnsupportedError if the net sets a field that the dialect does not have. Default dialect: the superset.
    """
    if dialect is not None:
        _refuse_missing_fields(net, dialect)
    message = protobuf_classes(dialect)["NetParameter"](name=_utf8(net.name))
    _fill_message(message, net.params)
    for value in net.inputs:
        message.input.append(_utf8(value.blob))
        if value.shape is not None:
            message.input_shape.add().dim.extend(value.shape)
    for layer in net.layers:
        _fill_layer(message.layer.add(), layer)
    return message


def _refuse_missing_fields(net: Net, dialect: Dialect) -> None:
    missing = sorted({path for _, path in fields_missing_in_dialect(dialect, net)})
    if missing:
        raise UnsupportedError(f"{net.source or net.name}: {dialect.source} has no field {', '.join(missing)}")


def _fill_layer(target: Any, layer: Layer) -> None:
    target.name, target.type = _utf8(layer.name), _utf8(layer.type)
    target.bottom.extend([_utf8(value.blob) for value in layer.bottoms])
    target.top.extend([_utf8(value.blob) for value in layer.tops])
    _fill_message(target, layer.params)


def _utf8(value: str) -> str:
    """Return the string in valid UTF-8, as protobuf requires; other bytes, which Caffe allows, become escapes."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _fill_message(target: Any, message: Message) -> None:
    """Copy the set fields of `message` to the protobuf message `target`; fields that its dialect lacks are skipped."""
    has = target.DESCRIPTOR.fields_by_name
    for name, value in message.set_fields():
        known = message.fields[name]
        if name not in has:
            continue
        if known.message is not None:
            for inner in value if known.repeated else (value,):
                inner_target = getattr(target, name).add() if known.repeated else getattr(target, name)
                inner_target.SetInParent()
                _fill_message(inner_target, inner)
        elif known.repeated:
            getattr(target, name).extend([_scalar_value(known, element) for element in value])
        else:
            setattr(target, name, _scalar_value(known, value))


def _scalar_value(known: Field[Any], value: Any) -> Any:
    if known.enum is not None:
        return known.enum[value]
    return _utf8(value) if known.kind == "string" else value


def fill_from_text(target: Any, tree: Sequence[TextField]) -> int:
    """Fill a protobuf message from a parsed text; return the number of fields that are unknown or do not fit."""
    setters = _setters_by_name(target.DESCRIPTOR)
    rejected = 0
    for name, value, _ in tree:
        setter = setters.get(name)
        if setter is None or (not setter.repeated and target.HasField(name)):
            rejected += 1
        elif setter.is_message and isinstance(value, tuple):
            rejected += fill_from_text(setter.inner_message(target), value)
        else:
            rejected += not setter.try_set(target, value)
    return rejected


@dataclass(frozen=True)
class _Setter:
    """Sets one field of a protobuf message from text; protobuf itself checks types and ranges."""

    name: str
    is_message: bool
    repeated: bool
    convert: Callable[[Any], Any]

    def inner_message(self, target: Any) -> Any:
        """Return the inner message to fill: a new element if the field is repeated, else the field, marked as set."""
        value = getattr(target, self.name)
        if self.repeated:
            return value.add()
        value.SetInParent()
        return value

    def try_set(self, target: Any, value: Any) -> bool:
        """Set the field and return True, or return False if protobuf does not accept the value."""
        try:
            converted = self.convert(value)
            if self.repeated:
                getattr(target, self.name).append(converted)
            else:
                setattr(target, self.name, converted)
        except (TypeError, ValueError, KeyError, AttributeError):
            return False
        return True


@cache
def _setters_by_name(descriptor: Any) -> dict[str, _Setter]:
    return {
        known.name: _Setter(known.name, known.message_type is not None, known.is_repeated, _converter(known))
        for known in descriptor.fields
    }


def _converter(known: Any) -> Callable[[Any], Any]:
    """Return the function that converts a text scalar to the field's Python value."""
    if known.enum_type is not None:
        numbers = {value.name: value.number for value in known.enum_type.values}
        return lambda value: numbers[value] if isinstance(value, str) else value
    if known.cpp_type == known.CPPTYPE_BOOL:
        return as_bool
    if known.cpp_type == known.CPPTYPE_STRING:
        return _string_value
    return _float_value if known.cpp_type == known.CPPTYPE_FLOAT else lambda value: value


def _string_value(value: Any) -> str:
    if isinstance(value, Word):
        raise TypeError("a string is expected in quotes")
    return _utf8(value)


def _float_value(value: Any) -> float:
    if isinstance(value, str) and not isinstance(value, Word):
        raise TypeError("a number is expected without quotes")
    return float(value)


def encoded_params(layer: Layer, dialect: Dialect) -> dict[int, bytes]:
    """Return the layer's parameter messages serialised, by field number in the dialect; those it lacks are left out."""
    classes = protobuf_classes(dialect)
    encoded: dict[int, bytes] = {}
    for name, value in layer.params.set_fields():
        number = dialect.number(name)
        if number is not None and isinstance(value, Message):
            message = classes[value.proto]()
            _fill_message(message, value)
            encoded[number] = message.SerializeToString(deterministic=True)
    return encoded
