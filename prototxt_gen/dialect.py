"""Dialects: each fork's schema in a descriptor pool of its own, and what its BN's fourth blob means.

A pool of our own never meets the one of an imported pycaffe, so both may define `caffe.LayerParameter`.
Text names its fields, so one superset schema reads every fork's text; binaries carry numbers, and there forks collide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from prototxt_gen import layers
from prototxt_gen.errors import PrototxtGenError, nearest
from prototxt_gen.ir import Layer, Net
from prototxt_gen.message import LAYER_FIELDS, Field, Message, as_bool
from prototxt_gen.schema import BlobShape, LayerParameter, NetParameter
from prototxt_gen.text import Field as TextField

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


@dataclass(frozen=True, eq=False)
class Dialect:
    """One fork. `numbers` are the LayerParameter fields that it has beside or unlike BVLC's; `lacks`, those it has not.

    `bn_statistic` is what the fourth blob of its BN holds: "inverse_std", "variance", or "" where it has no such BN or
    where the engine decides.
    """

    name: str
    source: str
    numbers: Mapping[str, int] = field(default_factory=dict)
    lacks: frozenset[str] = frozenset()
    bn_statistic: str = ""

    def number(self, field_name: str) -> int | None:
        """Return the number of a LayerParameter field in this fork, or None where the fork does not have it."""
        if field_name in self.numbers:
            return self.numbers[field_name]
        if field_name in self.lacks or field_name in _fork_fields():
            return None
        known = LAYER_FIELDS.get(field_name)
        return known.number if known else None


BVLC = Dialect("bvlc", "BVLC/caffe")
SSD_NUMBERS = {
    "annotated_data_param": 200,
    "multibox_loss_param": 201,
    "permute_param": 202,
    "prior_box_param": 203,
    "detection_output_param": 204,
    "detection_evaluate_param": 205,
    "norm_param": 206,
    "video_data_param": 207,
}
DIALECTS = {
    dialect.name: dialect
    for dialect in (
        BVLC,
        Dialect("ssd", "weiliu89/caffe, branch ssd", SSD_NUMBERS, frozenset({"swish_param", "clip_param"})),
        Dialect(
            "buptwangfei",
            "buptwangfei/caffe",
            {"interp_param": 147, "bn_param": 148},
            frozenset({"swish_param", "clip_param"}),
            "inverse_std",
        ),
        Dialect(
            "happynear",
            "happynear/caffe-windows",
            {
                "bn_param": 200,
                "triplet_loss_param": 203,
                "roi_pooling_param": 204,
                "normalize_param": 214,
                "proposal_param": 219,
                "psroi_pooling_param": 220,
                "smoothl1_param": 222,
                "permute_param": 224,
                "label_specific_rescale_param": 228,
                "resize_param": 231,
            },
            frozenset({"swish_param", "clip_param"}),
        ),
        Dialect(
            "yjxiong",
            "yjxiong/caffe",
            {
                "bn_param": 137,
                "video_data_param": 140,
                "seg_data_param": 141,
                "roi_pooling_param": 150,
                "scale_param": 160,
                "bias_param": 161,
                "batch_reduction_param": 162,
            },
            frozenset(
                {
                    *("batch_norm_param", "clip_param", "crop_param", "elu_param", "embed_param", "input_param"),
                    *("parameter_param", "recurrent_param", "swish_param", "tile_param"),
                }
            ),
            "variance",
        ),
        Dialect(
            "pspnet",
            "hszhao/PSPNet",
            {"interp_param": 143, "bn_param": 152},
            frozenset({"clip_param", "crop_param", "input_param", "parameter_param", "recurrent_param", "swish_param"}),
            "variance",
        ),
        Dialect(
            "brocolli",
            "brocolli-caffe 9.0.2",
            SSD_NUMBERS | {"bn_param": 1111},
            frozenset({"interp_param"}),
            "inverse_std",
        ),
        Dialect(
            "prototxt-gen",
            "the Caffe that `prototxt-gen caffe install` builds",
            SSD_NUMBERS | {"interp_param": 147, "bn_param": 148},
            frozenset({"swish_param", "clip_param"}),
            "inverse_std",
        ),
    )
}


def dialect(name: str) -> Dialect:
    """Return a dialect by name."""
    if name not in DIALECTS:
        hint = nearest(name, DIALECTS)
        raise PrototxtGenError(f"there is no dialect {name!r}; there are {', '.join(DIALECTS)}{hint}")
    return DIALECTS[name]


@cache
def _fork_fields() -> frozenset[str]:
    """The fields that BVLC does not have."""
    return frozenset(name for each in DIALECTS.values() for name in each.numbers) - {"scale_param", "bias_param"}


@cache
def classes(dialect: Dialect | None) -> Mapping[str, Any]:
    """Return protobuf classes by message name, `NetParameter` among them, from a pool that nothing else shares.

    None stands for the superset of all, for text.
    """
    layers.every()
    file = descriptor_pb2.FileDescriptorProto(name=f"prototxt_gen/{dialect.name if dialect else 'text'}.proto")
    file.package, file.syntax = "caffe", "proto2"
    written: set[str] = set()
    for kind in _reachable(NetParameter, LayerParameter, BlobShape):
        if kind.proto not in written:
            written.add(kind.proto)
            file.message_type.append(_message(kind, dialect))
    _add_structure(file)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [m.name for m in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in names}


def _reachable(*kinds: type[Message]) -> Iterator[type[Message]]:
    for kind in kinds:
        yield kind
        yield from _reachable(*(f.message for f in kind.fields.values() if f.message is not None))


def _message(kind: type[Message], dialect: Dialect | None) -> descriptor_pb2.DescriptorProto:
    made = descriptor_pb2.DescriptorProto(name=kind.proto)
    numbers = _layer_numbers(dialect) if kind is LayerParameter else {n: f.number for n, f in kind.fields.items()}
    for name, number in numbers.items():
        _add_field(made, kind.proto, name, number, kind.fields[name])
    return made


def _layer_numbers(dialect: Dialect | None) -> dict[str, int]:
    """Return the number of each LayerParameter field; in the superset, fields that collide get free ones."""
    if dialect is not None:
        found = {name: dialect.number(name) for name in LAYER_FIELDS}
        return {name: number for name, number in found.items() if number is not None}
    taken: set[int] = {1, 2, 3, 4}
    numbers: dict[str, int] = {}
    for name, known in LAYER_FIELDS.items():
        number = known.number if known.number and known.number not in taken else _FIRST_FREE + len(numbers)
        taken.add(number)
        numbers[name] = number
    return numbers


def _add_field(made: descriptor_pb2.DescriptorProto, owner: str, name: str, number: int, known: Field[Any]) -> None:
    added = made.field.add(name=name, number=number, type=_TYPES[known.kind])
    added.label = _KINDS.LABEL_REPEATED if known.repeated else _KINDS.LABEL_OPTIONAL
    if known.message is not None:
        added.type_name = f".caffe.{known.message.proto}"
    if known.enum is not None:
        added.type_name = _add_enum(made, owner, name, known.enum)


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
    """Return the net as a protobuf NetParameter, its extras left out."""
    made = classes(dialect)["NetParameter"](name=net.name)
    _fill(made, net.params)
    for value in net.inputs:
        made.input.append(value.blob)
        if value.shape is not None:
            made.input_shape.add().dim.extend(value.shape)
    for layer in net.layers:
        _fill_layer(made.layer.add(), layer)
    return made


def _fill_layer(made: Any, layer: Layer) -> None:
    made.name, made.type = layer.name, layer.type
    made.bottom.extend([value.blob for value in layer.bottoms])
    made.top.extend([value.blob for value in layer.tops])
    _fill(made, layer.params)


def _fill(made: Any, message: Message) -> None:
    for name, value in message.set_fields():
        known = message.fields[name]
        if known.message is not None:
            for one in value if known.repeated else (value,):
                target = getattr(made, name).add() if known.repeated else getattr(made, name)
                target.SetInParent()
                _fill(target, one)
        elif known.repeated:
            getattr(made, name).extend([known.enum[v] for v in value] if known.enum else value)
        else:
            setattr(made, name, known.enum[value] if known.enum else value)


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
    return float if known.cpp_type == known.CPPTYPE_FLOAT else lambda value: value


def encoded_params(layer: Layer, dialect: Dialect) -> dict[int, bytes]:
    """Return the layer's parameter messages serialised, by their numbers in a fork; those it lacks are left out."""
    known = classes(dialect)
    found: dict[int, bytes] = {}
    for name, value in layer.params.set_fields():
        number = dialect.number(name)
        if number is not None and isinstance(value, Message):
            made = known[value.proto]()
            _fill(made, value)
            found[number] = made.SerializeToString(deterministic=True)
    return found
