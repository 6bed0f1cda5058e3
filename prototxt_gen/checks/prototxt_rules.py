"""Rules about a net file as it is written, whatever the phase."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from prototxt_gen import layers
from prototxt_gen.checks.problem import ERROR, WARNING, Problem, Whole, of_file, of_layer
from prototxt_gen.common.errors import nearest
from prototxt_gen.net.blob_conflicts import miscounted
from prototxt_gen.schema.message import Extra, Message

_ANY_LAYER = frozenset({"transform_param", "loss_param"})
"""Parameters that several types read beside their own."""


def walk(message: Message, path: str = "") -> Iterator[tuple[str, Extra, bool]]:
    """Yield (dotted path, extra, whether the field itself is known) for all that does not fit the schema."""
    for extra in message.extras:
        yield path + extra.name, extra, extra.name in message.fields
    for name, value in message.set_fields():
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, Message):
                yield from walk(inner, f"{path}{name}.")


def verdict(extra: Extra, path: str, known: bool) -> tuple[str, str, str]:
    """Return severity, code and message of one field that does not fit."""
    if known:
        _, _, reason = extra.reason.partition(f".{extra.name}")
        return ERROR, "bad-value", f"{path}{reason}"
    return WARNING, "unknown-field", f"{path}: {extra.reason}"


def misfit_fields(file: Whole) -> Iterator[Problem]:
    """Fields that no schema here knows, and values that a known field cannot hold."""
    for path, extra, known in walk(file.net.params):
        yield of_file(*verdict(extra, path, known), extra.line)
    for layer in file.net.layers:
        for path, extra, known in walk(layer.params):
            severity, code, message = verdict(extra, path, known)
            yield of_layer(severity, code, layer, message, extra.line)


def unknown_types(file: Whole) -> Iterator[Problem]:
    for layer in file.net.layers:
        if not layer.type:
            yield of_layer(ERROR, "unknown-type", layer, "it has no type")
        elif layers.find_layer_type(layer.type) is None:
            yield of_layer(WARNING, "unknown-type", layer, f"the type is not known{_hint(layer.type)}")


@lru_cache(maxsize=1024)
def _hint(type_: str) -> str:
    return nearest(type_, layers.all_layer_types())


def foreign_parameters(file: Whole) -> Iterator[Problem]:
    """Parameters of another type, which Caffe reads and then does not use."""
    for layer in file.net.layers:
        layer_type = layers.find_layer_type(layer.type)
        own = {kind.field for kind in layer_type.params} | _ANY_LAYER if layer_type is not None else None
        for name, value in layer.params.set_fields():
            if own is not None and isinstance(value, Message) and name not in own:
                yield of_layer(WARNING, "foreign-parameter", layer, f"{name} is not for this type; Caffe ignores it")


def both_kinds_of_rules(file: Whole) -> Iterator[Problem]:
    """Source: src/caffe/net.cpp Net::FilterNet."""
    for layer in file.net.layers:
        if layer.params.include and layer.params.exclude:
            yield of_layer(ERROR, "include-and-exclude", layer, "it has both include and exclude; it may have one kind")


def phase_of_a_layer(file: Whole) -> Iterator[Problem]:
    """Source: src/caffe/net.cpp Net::Init: a layer's own `phase` overrules the net's; it does not choose the layer."""
    for layer in file.net.layers:
        if layer.params.has("phase"):
            phase = layer.params.phase
            message = f"phase: {phase} makes it work as in {phase} always; include {{ phase: {phase} }} chooses it"
            yield of_layer(WARNING, "layer-phase", layer, message)


def mixed_versions(file: Whole) -> Iterator[Problem]:
    """Source: src/caffe/util/upgrade_proto.cpp UpgradeV1Net."""
    new = next((field for field in file.tree if field.name == "layer"), None)
    old = next((field for field in file.tree if field.name == "layers"), None)
    if new is not None and old is not None:
        message = f"`layers` here and `layer` in line {new.line}: Caffe refuses a file with both"
        yield of_file(ERROR, "mixed-versions", message, old.line)


def counts_per_blob(file: Whole) -> Iterator[Problem]:
    for layer in file.net.layers:
        for message in miscounted(layer):
            yield of_layer(ERROR, "count", layer, message)


FILE_RULES = (
    mixed_versions,
    misfit_fields,
    unknown_types,
    foreign_parameters,
    both_kinds_of_rules,
    phase_of_a_layer,
    counts_per_blob,
)
