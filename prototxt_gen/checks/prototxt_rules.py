"""Rules for a net file as written, independent of the phase: unknown fields and types, mixed versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache

from prototxt_gen import layers
from prototxt_gen.checks.problem import ERROR, WARNING, NetFile, Problem, file_problem, layer_problem
from prototxt_gen.common.errors import nearest
from prototxt_gen.common.misspellings import misspelt_field, misspelt_type
from prototxt_gen.ir import Layer
from prototxt_gen.net.blob_conflicts import wrong_field_counts
from prototxt_gen.net.lowering_checks import is_repeated_in_forks
from prototxt_gen.schema.message import Extra, Message

PARAMETERS_OF_ANY_TYPE = frozenset({"transform_param", "loss_param"})
"""Parameters that layers of several types read, in addition to those of their type."""


def misfits(message: Message, path: str = "") -> Iterator[tuple[str, Extra, Collection[str]]]:
    """Yield (dotted path, extra, fields of its message) for each field that does not fit the schema."""
    for extra in message.extras:
        yield path + extra.name, extra, message.fields
    for name, value in message.set_fields():
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, Message):
                yield from misfits(inner, f"{path}{name}.")


def misfit_problem(extra: Extra, path: str, fields: Collection[str]) -> tuple[str, str, str]:
    """Return severity, code and message of the problem for one field from `misfits`.

    An unknown field may belong to a fork, so it is a warning; but a misspelt one is an error.
    """
    if extra.name in fields and is_repeated_in_forks(extra):
        return WARNING, "unknown-form", f"{path} is given more than once, as in forks where it is a repeated field"
    if extra.name in fields:
        _, _, reason = extra.reason.partition(f".{extra.name}")
        return ERROR, "bad-value", f"{path}{reason}"
    meant = misspelt_field(extra.name, fields)
    if meant:
        reason, _, _ = extra.reason.partition(";")
        return ERROR, "unknown-field", f"{path}: {reason}; did you mean {meant!r}?"
    return WARNING, "unknown-field", f"{path}: {extra.reason}"


def misfit_fields(file: NetFile) -> Iterator[Problem]:
    """Yield a problem for each unknown field, and for each known field with a wrong value."""
    for path, extra, fields in misfits(file.net.params):
        yield file_problem(*misfit_problem(extra, path, fields), extra.line)
    for layer in file.net.layers:
        for path, extra, fields in misfits(layer.params):
            severity, code, message = misfit_problem(extra, path, fields)
            yield layer_problem(severity, code, layer, message, extra.line)


def unknown_types(file: NetFile) -> Iterator[Problem]:
    for layer in file.net.layers:
        if not layer.type:
            yield layer_problem(ERROR, "unknown-type", layer, "it has no type")
        elif layers.find_layer_type(layer.type) is None:
            yield _unknown_type(layer)


def _unknown_type(layer: Layer) -> Problem:
    """Return the problem of an unknown type: a warning, as it may belong to a fork, but an error if it is misspelt."""
    meant = misspelt_type(layer.type, layers.all_layer_types())
    if meant:
        return layer_problem(ERROR, "unknown-type", layer, f"the type is not known; did you mean {meant!r}?")
    return layer_problem(WARNING, "unknown-type", layer, f"the type is not known{_hint(layer.type)}")


@lru_cache(maxsize=1024)
def _hint(type_: str) -> str:
    return nearest(type_, layers.all_layer_types())


def foreign_parameters(file: NetFile) -> Iterator[Problem]:
    """Yield a problem for each parameter of another layer type, which Caffe parses but does not use."""
    for layer in file.net.layers:
        layer_type = layers.find_layer_type(layer.type)
        if layer_type is None:
            continue
        allowed = {kind.field for kind in layer_type.params} | PARAMETERS_OF_ANY_TYPE
        for name, value in layer.params.set_fields():
            if isinstance(value, Message) and name not in allowed:
                message = f"{name} does not belong to this layer type; Caffe ignores it"
                yield layer_problem(WARNING, "foreign-parameter", layer, message)


def include_and_exclude(file: NetFile) -> Iterator[Problem]:
    """Yield a problem for each layer with both include and exclude rules. Source: src/caffe/net.cpp Net::FilterNet."""
    for layer in file.net.layers:
        if layer.params.include and layer.params.exclude:
            message = "it has both include and exclude rules; Caffe allows only one kind in a layer"
            yield layer_problem(ERROR, "include-and-exclude", layer, message)


def layers_with_phase(file: NetFile) -> Iterator[Problem]:
    """Yield a problem for each layer with a `phase` field, which is often mistaken for an include rule.

    Source: src/caffe/net.cpp Net::Init: a layer's `phase` overrules the net's phase; it does not select the layer.
    """
    for layer in file.net.layers:
        if layer.params.has("phase"):
            phase = layer.params.phase
            message = (
                f"phase: {phase} makes it compute as in the {phase} phase in every phase; to use it only in that phase "
                f"write include {{ phase: {phase} }}"
            )
            yield layer_problem(WARNING, "layer-phase", layer, message)


def mixed_versions(file: NetFile) -> Iterator[Problem]:
    """Yield a problem if the file has `layer` and `layers`. Source: src/caffe/util/upgrade_proto.cpp UpgradeV1Net."""
    new = next((field for field in file.tree if field.name == "layer"), None)
    old = next((field for field in file.tree if field.name == "layers"), None)
    if new is not None and old is not None:
        message = f"`layers` here, but `layer` in line {new.line}: Caffe refuses a file with both"
        yield file_problem(ERROR, "mixed-versions", message, old.line)


def wrong_counts(file: NetFile) -> Iterator[Problem]:
    for layer in file.net.layers:
        for message in wrong_field_counts(layer):
            yield layer_problem(ERROR, "count", layer, message)


PROTOTXT_RULES = (
    mixed_versions,
    misfit_fields,
    unknown_types,
    foreign_parameters,
    include_and_exclude,
    layers_with_phase,
    wrong_counts,
)
