"""Where Caffe's backward pass goes: from the losses down to what is learned.

Source: src/caffe/net.cpp Net::Init, Net::AppendBottom.
"""

from __future__ import annotations

from collections.abc import Callable

from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.net.phase_rules import is_loss

_GRADIENTS = {"BatchNorm": 0, "BN": 2}
"""How many of the blobs of a type have a gradient, where statistics follow."""


def learns(layer: Layer, blobs: int) -> bool:
    """Whether the solver learns one of the layer's blobs, of which there are so many."""
    count = min(blobs, _GRADIENTS.get(layer.type, blobs))
    given = layer.params.param[:count]
    return len(given) < count or any(spec.lr_mult for spec in given)


def backward(net: Net, learning: Callable[[Layer], bool]) -> list[tuple[Layer, tuple[int, ...]]]:
    """Return the layers of a net of one phase that gradients come to, with the places of the bottoms they go on to."""
    learned = _above_what_is_learned(net, learning)
    wanted: set[Value] = set()
    found = []
    for layer in reversed(net.layers):
        if is_loss(layer) or not wanted.isdisjoint(layer.tops):
            places = tuple(place for place, value in _down(net, layer) if value in learned)
            wanted |= {layer.bottoms[place] for place in places}
            found.append((layer, places))
    return found[::-1]


def _above_what_is_learned(net: Net, learning: Callable[[Layer], bool]) -> set[Value]:
    found: set[Value] = set()
    for layer in net.layers:
        if learning(layer) or any(value in found for _, value in _down(net, layer)):
            found |= set(layer.tops)
    return found


def _down(net: Net, layer: Layer) -> list[tuple[int, Value]]:
    """Return the bottoms that no `propagate_down: false` keeps gradients from; with force_backward none does."""
    flags = () if net.params.force_backward else layer.params.propagate_down
    return [(place, value) for place, value in enumerate(layer.bottoms) if place >= len(flags) or flags[place]]
