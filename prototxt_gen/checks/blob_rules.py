"""Rules for a net of one phase: which layers write and read each blob, layer names, and shapes."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen import layers
from prototxt_gen.analysis.unknown_shapes import root_causes
from prototxt_gen.checks.problem import ERROR, NOTE, WARNING, PhaseNet, Problem, file_problem, layer_problem
from prototxt_gen.checks.prototxt_rules import PARAMETERS_OF_ANY_TYPE
from prototxt_gen.common.errors import NetError, UnsupportedError, nearest
from prototxt_gen.ir import NOBODY, Layer, Value
from prototxt_gen.layers.base import LayerType
from prototxt_gen.net.blob_conflicts import blobs_written_twice, in_place_shape_changes, overwritten_shared_memory
from prototxt_gen.net.phase_rules import is_loss_or_metric, is_source_layer
from prototxt_gen.schema.message import Message

MAX_HINTS, MAX_BLOBS_FOR_HINTS = 100, 5000
"""Limits of the search for similar names, which is slow: its uses per net, and the blobs that a net may have for it."""


def dangling_bottoms(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each bottom that is not the top of an earlier layer.

    Source: src/caffe/net.cpp Net::AppendBottom.
    """
    first_values = {value.blob: value for value in reversed([*phase.net.values()])}
    all_blobs = {value.blob for value in phase.all_phases.values()}
    known = list(first_values) if len(first_values) <= MAX_BLOBS_FOR_HINTS else []
    reasons: dict[str, str] = {}
    for layer in phase.net.layers:
        for bottom in dict.fromkeys(value.blob for value in layer.bottoms if value.version == NOBODY):
            if bottom not in reasons:
                hint = "" if bottom in first_values or len(reasons) >= MAX_HINTS else nearest(bottom, known)
                reasons[bottom] = _dangling_reason(phase, layer, first_values.get(bottom), bottom in all_blobs) or hint
            message = f"its bottom {bottom!r} is not the top of an earlier layer{reasons[bottom]}"
            yield layer_problem(ERROR, "dangling-bottom", layer, message)


def _dangling_reason(phase: PhaseNet, layer: Layer, later_value: Value | None, in_other_phase: bool) -> str:
    if later_value is not None:
        writer = phase.layer_of_top[later_value]
        later = f"layer {writer.name!r} ({writer.type}) in line {writer.line}, which writes it, comes later in the file"
        return "" if writer is layer else f"; {later}"
    return f" in the {phase.name} phase, only in another phase" if in_other_phase else ""


def blobs_with_two_writers(phase: PhaseNet) -> Iterator[Problem]:
    for layer, message in blobs_written_twice(phase.net):
        yield layer_problem(ERROR, "made-twice", layer, message)


def overwritten_memory(phase: PhaseNet) -> Iterator[Problem]:
    for layer, message in overwritten_shared_memory(phase.net):
        yield layer_problem(WARNING, "shared-memory", layer, message)


def duplicate_names(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each layer name that is used twice.

    Source: src/caffe/net.cpp Net::CopyTrainedLayersFrom: weights are found by layer name.
    """
    first: dict[str, Layer] = {}
    for layer in phase.net.layers:
        other = first.setdefault(layer.name, layer)
        if other is layer:
            continue
        name = "its name is the same as" if layer.name else "it has no name, like"
        message = (
            f"{name} that of the layer in line {other.line}" if layer.name else f"{name} the layer in line {other.line}"
        )
        if _has_learned_blobs(layer) or _has_learned_blobs(other):
            lost = "weights are found by layer name, so one of the two layers gets none"
            yield layer_problem(ERROR, "duplicate-name", layer, f"{message}: {lost}")
        else:
            yield layer_problem(WARNING, "duplicate-name", layer, message)


def _has_learned_blobs(layer: Layer) -> bool:
    """Return whether layers of this type have learned blobs."""
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and type(layer_type).blobs is not LayerType.blobs


def unused_blobs(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each input or top that no layer reads, unless it is a plausible output of the net."""
    outputs = set(phase.net.outputs)
    for value in phase.net.inputs:
        if value in outputs:
            yield file_problem(WARNING, "unused-input", f"the input {value.blob!r} is read by no layer")
    for layer in phase.net.layers:
        for top in layer.tops:
            if top in outputs and not _may_be_output(phase, layer, top):
                yield layer_problem(WARNING, "unused-top", layer, f"its top {top.blob!r} is read by no layer")


def _may_be_output(phase: PhaseNet, layer: Layer, top: Value) -> bool:
    """Return whether a top may be an output: of a training net only losses and metrics, else all but the images."""
    if is_source_layer(layer):
        return not phase.is_training and top != layer.tops[0]
    layer_type = layers.find_layer_type(layer.type)
    return not phase.is_training or is_loss_or_metric(layer) or layer_type is None or not layer_type.examples


def wrong_arity(phase: PhaseNet) -> Iterator[Problem]:
    for layer in phase.net.layers:
        error = _arity_error(layer)
        if error is not None:
            code, hint = ("loss-without-label", "; it has no label") if _lacks_label(layer) else ("arity", "")
            severity = ERROR
            if isinstance(error, UnsupportedError):
                severity, code = WARNING, "unknown-form"
            yield layer_problem(severity, code, layer, _without_layer_name(layer, error) + hint)


def _arity_error(layer: Layer) -> NetError | None:
    layer_type = layers.find_layer_type(layer.type)
    try:
        if layer_type is not None:
            layer_type.of(layer).check_arity(layer)
    except NetError as error:
        return error
    return None


def _lacks_label(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.loss and len(layer.bottoms) == 1 < layer_type.bottoms.low


def _without_layer_name(layer: Layer, error: NetError) -> str:
    """Return the text of an error without its beginning, "layer 'name' (Type): "."""
    return str(error).removeprefix(f"layer {layer.name!r} ({layer.type}): ")


def wrong_shapes(phase: PhaseNet) -> Iterator[Problem]:
    """Yield the errors of the shape inference; layers below a layer with an error are not reported again."""
    for row in phase.rows:
        if row.error is None or row.blocked or isinstance(row.error, UnsupportedError):
            continue
        if _arity_error(row.layer) is None:
            problem, severity, code = _without_layer_name(row.layer, row.error), ERROR, "shape"
            if _has_parameters_of_a_fork(row.layer):
                problem += "; its parameters are those of a fork that is not known here, so this may be no error"
                severity, code = WARNING, "unknown-form"
            yield layer_problem(severity, code, row.layer, problem)


def _has_parameters_of_a_fork(layer: Layer) -> bool:
    """Return whether the layer has unknown fields that are not misspelt, also in another type's parameters."""
    layer_type = layers.find_layer_type(layer.type)
    if layer_type is None:
        return False
    unknown = (extra for _, extra in layer.unknown_fields(*layer_type.params))
    if any("has no field" in extra.reason and "did you mean" not in extra.reason for extra in unknown):
        return True
    of_type = {kind.field for kind in layer_type.params} | PARAMETERS_OF_ANY_TYPE
    foreign = [value for name, value in layer.params.set_fields() if isinstance(value, Message) and name not in of_type]
    return layer_type.data and any(value.extras for value in foreign)


def changed_shapes_in_place(phase: PhaseNet) -> Iterator[Problem]:
    for layer, message in in_place_shape_changes(phase.rows):
        yield layer_problem(ERROR, "in-place", layer, message)


def unchecked_shapes(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a note for each reason why the shapes of some layers are unknown."""
    for cause in root_causes(phase.analysis):
        if not cause.rows:
            continue
        first = cause.rows[0]
        if any(first.layer.params.walk_extras()) or _arity_error(first.layer) is not None:
            continue  # the unknown fields or the unknown form of the layer are reported by another rule
        if isinstance(first.error, UnsupportedError) and layers.find_layer_type(first.layer.type) is not None:
            waiting = f" ({cause.waiting} more layers depend on it)" if cause.waiting else ""
            message = f"shapes from here on were not checked{waiting}: {_without_layer_name(first.layer, first.error)}"
            yield layer_problem(NOTE, "not-checked", first.layer, message)


BLOB_RULES = (
    dangling_bottoms,
    blobs_with_two_writers,
    overwritten_memory,
    duplicate_names,
    wrong_arity,
    wrong_shapes,
    changed_shapes_in_place,
    unused_blobs,
    unchecked_shapes,
)
