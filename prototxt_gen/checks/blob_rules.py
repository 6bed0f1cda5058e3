"""Rules about who makes each blob and who takes it, and about shapes, in one phase."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen import layers
from prototxt_gen.analysis.unknown_shapes import root_causes
from prototxt_gen.checks.problem import ERROR, NOTE, WARNING, Phase, Problem, of_file, of_layer
from prototxt_gen.common.errors import NetError, UnsupportedError, nearest
from prototxt_gen.ir import NOBODY, Layer, Value
from prototxt_gen.layers.base import LayerType
from prototxt_gen.net.blob_conflicts import misshapen, overwritten, written_twice
from prototxt_gen.net.phase_rules import is_ending, is_source

MOST_HINTS, MOST_BLOBS = 100, 5000
"""Nearest names are looked for this often, and in nets of no more blobs than this."""


def dangling_bottoms(phase: Phase) -> Iterator[Problem]:
    """Source: src/caffe/net.cpp Net::AppendBottom."""
    made = {value.blob: value for value in reversed([*phase.net.values()])}
    anywhere = {value.blob for value in phase.whole.values()}
    known = list(made) if len(made) <= MOST_BLOBS else []
    whys: dict[str, str] = {}
    for layer in phase.net.layers:
        for bottom in dict.fromkeys(value.blob for value in layer.bottoms if value.version == NOBODY):
            if bottom not in whys:
                hint = "" if bottom in made or len(whys) >= MOST_HINTS else nearest(bottom, known)
                whys[bottom] = _why_dangling(phase, layer, made.get(bottom), bottom in anywhere) or hint
            message = f"its bottom {bottom!r} is made by no layer before it{whys[bottom]}"
            yield of_layer(ERROR, "dangling-bottom", layer, message)


def _why_dangling(phase: Phase, layer: Layer, made: Value | None, elsewhere: bool) -> str:
    if made is not None:
        maker = phase.makers[made]
        later = f"layer {maker.name!r} ({maker.type}) of line {maker.line}, which comes after it, makes one"
        return "" if maker is layer else f"; {later}"
    return f" in the {phase.name} phase; in another it is" if elsewhere else ""


def blobs_made_twice(phase: Phase) -> Iterator[Problem]:
    for layer, message in written_twice(phase.net):
        yield of_layer(ERROR, "made-twice", layer, message)


def shared_memory(phase: Phase) -> Iterator[Problem]:
    for layer, message in overwritten(phase.net):
        yield of_layer(WARNING, "shared-memory", layer, message)


def duplicate_names(phase: Phase) -> Iterator[Problem]:
    """Source: src/caffe/net.cpp Net::CopyTrainedLayersFrom: weights are found by layer name."""
    first: dict[str, Layer] = {}
    for layer in phase.net.layers:
        other = first.setdefault(layer.name, layer)
        if other is layer:
            continue
        name = f"its name is that of line {other.line}" if layer.name else f"like line {other.line} it has no name"
        if _learns(layer) or _learns(other):
            yield of_layer(ERROR, "duplicate-name", layer, f"{name}: weights go by name, so one of the two gets none")
        else:
            yield of_layer(WARNING, "duplicate-name", layer, name)


def _learns(layer: Layer) -> bool:
    """Whether the type has blobs at all."""
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and type(layer_type).blobs is not LayerType.blobs


def unused_blobs(phase: Phase) -> Iterator[Problem]:
    """Tops that no layer takes, where that is no natural end of the net."""
    outputs = set(phase.net.outputs)
    for value in phase.net.inputs:
        if value in outputs:
            yield of_file(WARNING, "unused-input", f"the input {value.blob!r} is taken by no layer")
    for layer in phase.net.layers:
        for top in layer.tops:
            if top in outputs and not _may_end(phase, layer, top):
                yield of_layer(WARNING, "unused-top", layer, f"its top {top.blob!r} is taken by no layer")


def _may_end(phase: Phase, layer: Layer, top: Value) -> bool:
    """A net that learns ends in losses and metrics; any other may end anywhere but at its images."""
    if is_source(layer):
        return not phase.trains and top != layer.tops[0]
    layer_type = layers.find_layer_type(layer.type)
    return not phase.trains or is_ending(layer) or layer_type is None or not layer_type.examples


def wrong_arity(phase: Phase) -> Iterator[Problem]:
    for layer in phase.net.layers:
        error = _arity_error(layer)
        if error is not None:
            code, why = ("loss-without-label", "; it has no label") if _lacks_label(layer) else ("arity", "")
            yield of_layer(ERROR, code, layer, _bare(layer, error) + why)


def _arity_error(layer: Layer) -> NetError | None:
    layer_type = layers.find_layer_type(layer.type)
    try:
        if layer_type is not None:
            layer_type.check_arity(layer)
    except NetError as error:
        return error
    return None


def _lacks_label(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.loss and len(layer.bottoms) == 1 < layer_type.bottoms.low


def _bare(layer: Layer, error: NetError) -> str:
    """Return an error's text without the layer that it names."""
    return str(error).removeprefix(f"layer {layer.name!r} ({layer.type}): ")


def wrong_shapes(phase: Phase) -> Iterator[Problem]:
    """What the layer types say against parameters and shapes; what follows from it further down is not said again."""
    for row in phase.rows:
        if row.error is None or row.blocked or isinstance(row.error, UnsupportedError):
            continue
        if _arity_error(row.layer) is None:
            yield of_layer(ERROR, "shape", row.layer, _bare(row.layer, row.error))


def shapes_in_place(phase: Phase) -> Iterator[Problem]:
    for layer, message in misshapen(phase.rows):
        yield of_layer(ERROR, "in-place", layer, message)


def not_checked(phase: Phase) -> Iterator[Problem]:
    """Say what could not be checked, once for each reason."""
    for cause in root_causes(phase.analysis):
        if not cause.rows:
            continue
        first = cause.rows[0]
        if any(first.layer.params.walk_extras()):
            continue  # its unknown fields are problems of their own
        if isinstance(first.error, UnsupportedError) and layers.find_layer_type(first.layer.type) is not None:
            waiting = f" ({cause.waiting} layers wait for it)" if cause.waiting else ""
            message = f"shapes from here on were not checked{waiting}: {_bare(first.layer, first.error)}"
            yield of_layer(NOTE, "not-checked", first.layer, message)


BLOB_RULES = (
    dangling_bottoms,
    blobs_made_twice,
    shared_memory,
    duplicate_names,
    wrong_arity,
    wrong_shapes,
    shapes_in_place,
    unused_blobs,
    not_checked,
)
