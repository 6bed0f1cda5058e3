"""Rule against in-place layers that overwrite a top which Caffe's backward pass still reads: gradients become wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prototxt_gen import layers
from prototxt_gen.analysis import Row
from prototxt_gen.checks.problem import WARNING, PhaseNet, Problem, layer_problem
from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.activation.power import PowerParameter
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.normalization.lrn import LRNParameter
from prototxt_gen.layers.normalization.mvn import MVNParameter
from prototxt_gen.layers.utility.eltwise import EltwiseParameter
from prototxt_gen.net.backward_pass import has_learned_blob, layers_with_gradient
from prototxt_gen.net.blob_conflicts import is_in_place


def _power_reads_top(layer: Layer) -> bool:
    own = layer.get(PowerParameter)
    return own.power not in (0, 1, 2) and own.scale != 0


def _always(layer: Layer) -> bool:
    return True


def _never(layer: Layer) -> bool:
    return False


_GRADIENT_READS_TOP: Mapping[str, Callable[[Layer], bool]] = {
    **dict.fromkeys(("ELU", "Exp", "LSTMUnit", "Sigmoid", "Softmax", "Swish", "TanH"), _always),
    "Eltwise": lambda layer: (own := layer.get(EltwiseParameter)).operation == "PROD" and not own.stable_prod_grad,
    "LRN": lambda layer: layer.get(LRNParameter).norm_region == "ACROSS_CHANNELS",
    "MVN": lambda layer: layer.get(MVNParameter).normalize_variance,
    "Power": _power_reads_top,
}
"""Types that compute the gradient of their bottom from their top, with a condition on the layer.

Source: Backward_cpu in src/caffe/layers/{elu,exp,…}_layer.cpp.
"""
_BLOB_GRADIENT_READS_TOP = frozenset({"Normalize"})
"""Types that compute the gradient of their learned blob from their top.

Source: weiliu89/caffe (branch ssd) src/caffe/layers/normalize_layer.cpp.
"""
_NEVER_NEGATIVE = frozenset({"Exp", "Sigmoid", "Softmax"})
"""Types whose tops are never negative, so that a ReLU in place leaves the top unchanged."""


def overwritten_tops(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each in-place layer that overwrites a top which the backward pass of another layer reads."""
    reader_of: dict[Value, Layer] = {}
    reader_ids = _ids_of_top_readers(phase) if phase.is_training else set()
    for layer in phase.net.layers:
        for index, top in enumerate(layer.tops):
            bottom = layer.bottoms[index] if is_in_place(layer, index) else _memory_source(layer)
            reader = reader_of.get(bottom) if bottom else None
            if reader and is_in_place(layer, index) and not _leaves_top_unchanged(layer, reader):
                yield layer_problem(WARNING, "lost-top", layer, _message(top, reader))
            elif reader:
                reader_of[top] = reader
            if id(layer) in reader_ids:
                reader_of[top] = layer


def _ids_of_top_readers(phase: PhaseNet) -> set[int]:
    """Return the ids of the layers that get a gradient and whose backward pass reads their top."""
    learned_ids = {id(row.layer) for row in phase.rows if _is_learned(row)}
    return {
        id(layer)
        for layer, bottoms in layers_with_gradient(phase.net, lambda layer: id(layer) in learned_ids)
        if (bottoms and _GRADIENT_READS_TOP.get(layer.type, _never)(layer))
        or (id(layer) in learned_ids and layer.type in _BLOB_GRADIENT_READS_TOP)
    }


def _is_learned(row: Row) -> bool:
    """Return whether the solver learns a blob of the layer; if shapes are unknown, any type with blobs counts."""
    if row.known:
        return has_learned_blob(row.layer, sum(not spec.statistic for spec in row.blobs.values()))
    layer_type = layers.find_layer_type(row.layer.type)
    blobs = layer_type is not None and type(layer_type).blobs is not LayerType.blobs
    return has_learned_blob(row.layer, int(blobs) or len(row.layer.params.param))


def _memory_source(layer: Layer) -> Value | None:
    """Return the bottom whose memory the tops share, if the type shares memory."""
    layer_type = layers.find_layer_type(layer.type)
    return layer.bottoms[0] if layer_type is not None and layer.bottoms and layer_type.shares_memory(layer) else None


def _leaves_top_unchanged(layer: Layer, reader: Layer) -> bool:
    return layer.type == "ReLU" and reader.type in _NEVER_NEGATIVE


def _message(top: Value, reader: Layer) -> str:
    where = f"layer {reader.name!r} ({reader.type}) in line {reader.line}"
    return (
        f"it overwrites {top.blob!r} in place, which {where} needs for its gradient, so the gradient is wrong in Caffe "
        "(not with --backend torch): give its top another name"
    )


IN_PLACE_RULES = (overwritten_tops,)
