"""Checks before a net is converted or run, shared by the ONNX and PyTorch targets; all errors are raised as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row, analyse
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.layers.base import LayerType
from prototxt_gen.net import blob_conflicts, shared_parameters
from prototxt_gen.schema.message import Extra, Message

T = TypeVar("T")
M = TypeVar("M", bound=Message)


def analyse_for_conversion(
    net: Net, input_shapes: Mapping[str, Shape] | None = None, ignored: Collection[str] = ()
) -> Analysis:
    """Return the analysis of a net of one phase, or raise if any shape is unknown or any blob conflicts.

    `input_shapes` gives shapes of inputs that are not in the file. `ignored` are names of unknown fields that do not
    change the result. Raises NetError (UnsupportedError if nothing worse is wrong) with all problems in one text:
    layers whose shapes cannot be inferred, bottoms without a layer that makes them, blobs written twice, shared blobs
    of different shapes, and unknown fields, since an unknown field may change what its layer computes.
    """
    net = without_unknown_fields(net, ignored)
    analysis = analyse(net, input_shapes)
    failed = [row for row in analysis.rows if row.error is not None and not row.blocked]
    causes = [row.error for row in failed if row.error is not None and not _has_unknown_parameters(row.layer)]
    causes += [*blob_conflicts.conflict_errors(analysis), *shared_parameters.sharing_errors(analysis.rows)]
    blocked = [row.error for row in analysis.rows if row.error is not None and row.blocked]
    problems = [*map(str, causes), *(text for layer in net.layers for text in _unknown_field_errors(layer))]
    problems = problems or [str(error) for error in blocked[:1]]
    if problems:
        only_unsupported = all(isinstance(error, UnsupportedError) for error in causes)
        raise (UnsupportedError if only_unsupported else NetError)(_joined_errors(net, problems))
    return analysis


def is_input_layer(layer: Layer) -> bool:
    """Return whether the layer is an Input or data layer, whose tops come from outside the net.

    Types that compute their tops themselves, such as DummyData, do not count.
    """
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.data and type(layer_type).torch is LayerType.torch


def net_inputs(net: Net) -> tuple[Value, ...]:
    """Return the values that come from outside: the net's inputs, and tops of data layers that some layer reads."""
    read_values = {value for layer in net.layers for value in layer.bottoms}
    data_tops = (value for layer in net.layers if is_input_layer(layer) for value in layer.tops if value in read_values)
    return (*net.inputs, *data_tops)


def computed_outputs(net: Net) -> tuple[Value, ...]:
    """Return the outputs of the net that a layer computes, in Caffe's order: by the bytes of the blobs' names.

    Inputs and tops of data layers that no layer reads do not count, though Caffe lists them too. Source:
    src/caffe/net.cpp Net::Init, where `available_blobs` is a std::set of names: a bottom is taken out, a top is put in,
    and the blobs that are left at the end become `net_output_blobs_`.
    """
    inputs = {value for layer in net.layers if is_input_layer(layer) for value in layer.tops} | set(net.inputs)
    outputs = (value for value in net.outputs if value not in inputs)
    return tuple(sorted(outputs, key=lambda value: value.blob.encode("utf-8", "surrogateescape")))


def last_output(net: Net) -> Value | None:
    """Return the output that the last layer with an output computes, which is a net's main result; None without any."""
    outputs = set(computed_outputs(net))
    return next((value for layer in reversed(net.layers) for value in layer.tops[::-1] if value in outputs), None)


def without_unknown_fields(net: Net, names: Collection[str]) -> Net:
    """Return the net without the unknown fields of these names, at any depth of any layer."""
    if not names:
        return net
    return net.map(lambda layer: replace(layer, params=_without_extras(layer.params, names)))


def _without_extras(message: M, names: Collection[str]) -> M:
    inner = {name: _without_extras(value, names) for name, value in message.set_fields() if isinstance(value, Message)}
    return message.replace(**inner).without_extras(names)


def _unknown_fields(layer: Layer) -> list[tuple[str, Extra]]:
    layer_type = layers.find_layer_type(layer.type)
    return list(layer.unknown_fields(*(layer_type.params if layer_type else ())))


def _has_unknown_parameters(layer: Layer) -> bool:
    """Return whether the layer's type parameters hold unknown fields, which then may be the cause of its error."""
    return any(path != extra.name for path, extra in _unknown_fields(layer))


def _unknown_field_errors(layer: Layer) -> list[str]:
    return [
        f"layer {layer.name!r} ({layer.type}): line {extra.line}: {path} is not understood ({extra.reason})"
        + ("" if is_repeated_in_forks(extra) else _IGNORE_ADVICE.format(extra.name))
        for path, extra in _unknown_fields(layer)
    ]


_IGNORE_ADVICE = "; if it does not change what the layer computes, use --ignore-field {}"
_REPEATED_IN_FORKS = {
    "PoolingParameter": ("kernel_size", "stride", "pad", "dilation"),
    "TransformationParameter": ("resize_param",),
}
"""Fields that are repeated in naibaf7/caffe (Pooling) and eric612/MobileNet-YOLO (transform_param), by message."""


def is_repeated_in_forks(extra: Extra) -> bool:
    """Return whether an extra is a field that some fork, but not BVLC's Caffe, takes more than once."""
    message, _, problem = extra.reason.partition(".")
    return extra.name in _REPEATED_IN_FORKS.get(message, ()) and problem.endswith("is given more than once")


def _joined_errors(net: Net, problems: list[str]) -> str:
    where = f"{net.source}: " if net.source else ""
    return where + (problems[0] if len(problems) == 1 else "".join(f"\n  {problem}" for problem in problems))


def lower_all(analysis: Analysis, lower: Callable[[Row], T], target: str) -> list[T]:
    """Return `lower(row)` of every layer, in order; `lower` makes the target's form of one layer.

    Raises one UnsupportedError that lists all layers which `lower` refused, grouped by type, with the reasons.
    """
    lowered: list[T] = []
    refused: dict[str, list[str]] = {}
    for row in analysis.rows:
        try:
            lowered.append(lower(row))
        except UnsupportedError as error:
            refused.setdefault(row.layer.type, []).append(str(error))
    if refused:
        count = sum(map(len, refused.values()))
        types = ", ".join(f"{type_} ×{len(texts)}" for type_, texts in refused.items())
        listed = "".join(f"\n  {text}" for texts in refused.values() for text in texts)
        where = f"{analysis.net.source or analysis.net.name}: {count} of {len(analysis.rows)} layers"
        raise UnsupportedError(f"{where} cannot be converted to {target} ({types}):{listed}")
    return lowered
