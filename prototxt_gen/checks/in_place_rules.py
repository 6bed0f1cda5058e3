"""Layers written over although Caffe's backward pass of theirs reads what they made: the gradient is silently wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prototxt_gen import layers
from prototxt_gen.analysis import Row
from prototxt_gen.checks.problem import WARNING, Phase, Problem, of_layer
from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.activation.power import PowerParameter
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.normalization.lrn import LRNParameter
from prototxt_gen.layers.normalization.mvn import MVNParameter
from prototxt_gen.layers.utility.eltwise import EltwiseParameter
from prototxt_gen.net.backward_pass import backward, learns
from prototxt_gen.net.blob_conflicts import in_place


def _power(layer: Layer) -> bool:
    own = layer.get(PowerParameter)
    return own.power not in (0, 1, 2) and own.scale != 0


def _always(layer: Layer) -> bool:
    return True


def _never(layer: Layer) -> bool:
    return False


_READS_TOP: Mapping[str, Callable[[Layer], bool]] = {
    **dict.fromkeys(("ELU", "Exp", "LSTMUnit", "Sigmoid", "Softmax", "Swish", "TanH"), _always),
    "Eltwise": lambda layer: (own := layer.get(EltwiseParameter)).operation == "PROD" and not own.stable_prod_grad,
    "LRN": lambda layer: layer.get(LRNParameter).norm_region == "ACROSS_CHANNELS",
    "MVN": lambda layer: layer.get(MVNParameter).normalize_variance,
    "Power": _power,
}
"""Whose bottom's gradient is made from the top. Source: Backward_cpu in src/caffe/layers/{elu,exp,…}_layer.cpp."""
_LEARNS_FROM_TOP = frozenset({"Normalize"})
"""Whose blob's gradient is. Source: weiliu89/caffe (branch ssd) src/caffe/layers/normalize_layer.cpp."""
_NEVER_NEGATIVE = frozenset({"Exp", "Sigmoid", "Softmax"})
"""A ReLU changes nothing in their tops."""


def lost_tops(phase: Phase) -> Iterator[Problem]:
    """Where the solver learns: a layer in place on the top of one that takes a gradient from that top."""
    readers: dict[Value, Layer] = {}
    reading = _readers(phase) if phase.trains else set()
    for layer in phase.net.layers:
        for place, top in enumerate(layer.tops):
            below = layer.bottoms[place] if in_place(layer, place) else _shared(layer)
            reader = readers.get(below) if below else None
            if reader and in_place(layer, place) and not _changes_nothing(layer, reader):
                yield of_layer(WARNING, "lost-top", layer, _told(top, reader))
            elif reader:
                readers[top] = reader
            if id(layer) in reading:
                readers[top] = layer


def _readers(phase: Phase) -> set[int]:
    """Return the ids of the layers that gradients come to, and that make theirs from their tops."""
    learning = {id(row.layer) for row in phase.rows if _learns(row)}
    return {
        id(layer)
        for layer, places in backward(phase.net, lambda one: id(one) in learning)
        if (places and _READS_TOP.get(layer.type, _never)(layer))
        or (id(layer) in learning and layer.type in _LEARNS_FROM_TOP)
    }


def _learns(row: Row) -> bool:
    """Where shapes, and so the blobs, are not known, every layer of a type that has blobs counts."""
    if row.known:
        return learns(row.layer, sum(not spec.statistic for spec in row.blobs.values()))
    layer_type = layers.find_layer_type(row.layer.type)
    blobs = layer_type is not None and type(layer_type).blobs is not LayerType.blobs
    return learns(row.layer, int(blobs) or len(row.layer.params.param))


def _shared(layer: Layer) -> Value | None:
    """Return the bottom whose memory the tops have."""
    layer_type = layers.find_layer_type(layer.type)
    return layer.bottoms[0] if layer_type is not None and layer.bottoms and layer_type.shares_memory(layer) else None


def _changes_nothing(layer: Layer, reader: Layer) -> bool:
    return layer.type == "ReLU" and reader.type in _NEVER_NEGATIVE


def _told(top: Value, reader: Layer) -> str:
    where = f"layer {reader.name!r} ({reader.type}) of line {reader.line}"
    return (
        f"it writes over {top.blob!r}, from which {where} takes its gradient, which in Caffe is wrong then (not with "
        "--backend torch): give its top another name"
    )


GRADIENT_RULES = (lost_tops,)
