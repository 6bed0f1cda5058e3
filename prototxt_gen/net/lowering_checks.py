"""What every target shares: a net made ready for it, and all that it cannot do told in one error."""

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


def ready(net: Net, given: Mapping[str, Shape] | None = None, ignored: Collection[str] = ()) -> Analysis:
    """Return the analysis of a net of one phase, everything known.

    Raises NetError, all faults in one text: layers whose shapes cannot be known, bottoms that nothing makes, blobs
    written twice, blobs shared that do not fit, and fields that are not understood, since one of them may change what a
    layer computes; `ignored` names those that do not.
    """
    net = without_fields(net, ignored)
    analysis = analyse(net, given)
    failed = [row for row in analysis.rows if row.error is not None and not row.blocked]
    causes = [row.error for row in failed if row.error is not None and not _has_odd_params(row.layer)]
    causes += [*blob_conflicts.faults(analysis), *shared_parameters.faults(analysis.rows)]
    blocked = [row.error for row in analysis.rows if row.error is not None and row.blocked]
    faults = [*map(str, causes), *(text for layer in net.layers for text in _not_understood(layer))]
    faults = faults or [str(error) for error in blocked[:1]]
    if faults:
        only_unsupported = all(isinstance(error, UnsupportedError) for error in causes)
        raise (UnsupportedError if only_unsupported else NetError)(_listed(net, faults))
    return analysis


def is_fed(layer: Layer) -> bool:
    """Whether the layer's tops come from outside: a data layer or an input, but not one that makes constants."""
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.data and type(layer_type).torch is LayerType.torch


def sources(net: Net) -> tuple[Value, ...]:
    """Return the values that come from outside: inputs, and tops of data layers that some layer takes."""
    taken = {value for layer in net.layers for value in layer.bottoms}
    made = (value for layer in net.layers if is_fed(layer) for value in layer.tops if value in taken)
    return (*net.inputs, *made)


def results(net: Net) -> tuple[Value, ...]:
    """Return the outputs that some layer computes; labels that nobody takes are none."""
    fed = {value for layer in net.layers if is_fed(layer) for value in layer.tops} | set(net.inputs)
    return tuple(value for value in net.outputs if value not in fed)


def without_fields(net: Net, names: Collection[str]) -> Net:
    """Return the net without the unknown fields of these names, wherever they stand."""
    if not names:
        return net
    return net.map(lambda layer: replace(layer, params=_stripped(layer.params, names)))


def _stripped(message: M, names: Collection[str]) -> M:
    inner = {name: _stripped(value, names) for name, value in message.set_fields() if isinstance(value, Message)}
    return message.replace(**inner).without_extras(names)


def _unknown(layer: Layer) -> list[tuple[str, Extra]]:
    layer_type = layers.find_layer_type(layer.type)
    return list(layer.unknown_fields(*(layer_type.params if layer_type else ())))


def _has_odd_params(layer: Layer) -> bool:
    """Whether the layer's own parameters hold fields that are not known, which then are all that is wrong with it."""
    return any(path != extra.name for path, extra in _unknown(layer))


def _not_understood(layer: Layer) -> list[str]:
    return [
        f"layer {layer.name!r} ({layer.type}): line {extra.line}: {path} is not understood ({extra.reason}); "
        f"if it does not change what the layer computes, --ignore-field {extra.name}"
        for path, extra in _unknown(layer)
    ]


def _listed(net: Net, faults: list[str]) -> str:
    where = f"{net.source}: " if net.source else ""
    return where + (faults[0] if len(faults) == 1 else "".join(f"\n  {fault}" for fault in faults))


def lower_all(analysis: Analysis, lower: Callable[[Row], T], target: str) -> list[T]:
    """Lower every layer in order; one UnsupportedError lists every layer that cannot be, by type, with the reason."""
    made: list[T] = []
    refused: dict[str, list[str]] = {}
    for row in analysis.rows:
        try:
            made.append(lower(row))
        except UnsupportedError as error:
            refused.setdefault(row.layer.type, []).append(str(error))
    if refused:
        count = sum(map(len, refused.values()))
        kinds = ", ".join(f"{type_} ×{len(texts)}" for type_, texts in refused.items())
        listed = "".join(f"\n  {text}" for texts in refused.values() for text in texts)
        where = f"{analysis.net.source or analysis.net.name}: {count} of {len(analysis.rows)} layers"
        raise UnsupportedError(f"{where} cannot go to {target} ({kinds}):{listed}")
    return made
