"""Which layers and bottoms Caffe's backward pass reaches, from the losses down to the learned blobs.

Source: src/caffe/net.cpp Net::Init, Net::AppendBottom.
"""

from __future__ import annotations

from collections.abc import Callable

from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.net.phase_rules import is_loss

_BLOBS_WITH_GRADIENT = {"BatchNorm": 0, "BN": 2}
"""Number of blobs that have a gradient, for the types whose other blobs are statistics."""


def has_learned_blob(layer: Layer, blob_count: int) -> bool:
    """Return whether the solver learns at least one of the layer's `blob_count` blobs."""
    count = min(blob_count, _BLOBS_WITH_GRADIENT.get(layer.type, blob_count))
    specs = layer.params.param[:count]
    return len(specs) < count or any(spec.lr_mult for spec in specs)


def layers_with_gradient(net: Net, is_learning: Callable[[Layer], bool]) -> list[tuple[Layer, tuple[int, ...]]]:
    """Return the layers that the backward pass runs, each with the indices of the bottoms that get a gradient.

    `net` is a net of one phase; `is_learning` says whether the solver learns blobs of a layer.
    """
    above_learned = _values_above_learned_blobs(net, is_learning)
    with_gradient: set[Value] = set()
    reached = []
    for layer in reversed(net.layers):
        if is_loss(layer) or not with_gradient.isdisjoint(layer.tops):
            indices = tuple(index for index, value in _propagated_bottoms(net, layer) if value in above_learned)
            with_gradient |= {layer.bottoms[index] for index in indices}
            reached.append((layer, indices))
    return reached[::-1]


def _values_above_learned_blobs(net: Net, is_learning: Callable[[Layer], bool]) -> set[Value]:
    values: set[Value] = set()
    for layer in net.layers:
        if is_learning(layer) or any(value in values for _, value in _propagated_bottoms(net, layer)):
            values |= set(layer.tops)
    return values


def _propagated_bottoms(net: Net, layer: Layer) -> list[tuple[int, Value]]:
    """Return (index, value) of each bottom without `propagate_down: false`, which `force_backward` overrules."""
    flags = () if net.params.force_backward else layer.params.propagate_down
    return [(index, value) for index, value in enumerate(layer.bottoms) if index >= len(flags) or flags[index]]
