"""Net, Layer and Value: immutable data classes that represent a net, independent of protobuf and of weights.

A Caffe layer may overwrite its bottom with its top ("in place"). Here every top is a new `Value`, which has the same
blob name and a higher version if it is written in place. So a net is a graph in which each value is written once, and
writing only the blob names restores the in-place layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from prototxt_gen.common.errors import NetError, layer_error, nearest
from prototxt_gen.schema.caffe_proto import LayerParameter, NetParameter, NetStateRule
from prototxt_gen.schema.message import Extra, Message

Shape = tuple[int, ...]
"""Sizes of the axes: N×C×H×W for images, but any number of axes."""

M = TypeVar("M", bound=Message)
Kind = type[M]  # Layer has a field called `type`

NOBODY = -1
"""The version of a bottom that is neither an input nor the top of an earlier layer (a dangling bottom)."""


def show(shape: Shape | None) -> str:
    """Return a shape as text: `1x512x28x28`, `()` for a scalar, `?` if unknown."""
    return "?" if shape is None else "x".join(map(str, shape)) or "()"


@dataclass(frozen=True, slots=True)
class Value:
    """One version of a blob. `shape` is None if unknown; it is ignored in comparisons."""

    blob: str
    version: int = 0
    shape: Shape | None = field(default=None, compare=False)

    @property
    def channels(self) -> int:
        """The size of axis 1. Raises NetError if the shape is unknown."""
        return self.known_shape[1]

    @property
    def known_shape(self) -> Shape:
        """The shape. Raises NetError if it is unknown."""
        if self.shape is None:
            raise NetError(f"the shape of blob {self.blob!r} is unknown")
        return self.shape


@dataclass(frozen=True)
class Layer:
    """A layer of a net. `params` has all its other fields; `line` is its line in the file, 0 if it has none."""

    name: str
    type: str
    bottoms: tuple[Value, ...]
    tops: tuple[Value, ...]
    params: LayerParameter = field(default_factory=LayerParameter)
    line: int = field(default=0, compare=False)

    def get(self, kind: Kind[M]) -> M:
        """Return the layer's parameters of a class, such as PoolingParameter, or the defaults if there are none."""
        value = dict(self.params.set_fields()).get(kind.field)
        return value if isinstance(value, kind) else kind()

    def unknown_fields(self, *kinds: Kind[Message]) -> Iterator[tuple[str, Extra]]:
        """Yield (dotted path, extra) of the unknown fields of the layer and of its parameters of these classes."""
        for extra in self.params.extras:
            yield extra.name, extra
        for kind in kinds:
            yield from self.get(kind).walk_extras(f"{kind.field}.")

    def error(self, problem: str) -> NetError:
        """Return a NetError with the text `layer 'name' (Type): problem`."""
        return layer_error(self.name, self.type, problem)


@dataclass(frozen=True)
class Net:
    """A net: inputs and layers, in order. `params` has all other fields; `source` is the file name for error messages.

    A net read from a train_val has the layers of both phases; `at` returns the net of one phase.
    """

    name: str
    inputs: tuple[Value, ...]
    layers: tuple[Layer, ...]
    params: NetParameter = field(default_factory=NetParameter)
    source: str = field(default="", compare=False)

    @cached_property
    def outputs(self) -> tuple[Value, ...]:
        """The values that no layer reads, in the net's order. Caffe lists them as outputs, sorted by name."""
        read_values = {value for layer in self.layers for value in layer.bottoms}
        return tuple(value for value in self.values() if value not in read_values)

    def values(self) -> Iterator[Value]:
        """Yield the inputs and the tops of all layers, in order."""
        yield from self.inputs
        for layer in self.layers:
            yield from layer.tops

    def layer(self, name: str) -> Layer:
        """Return the first layer of this name. Raises NetError, with the most similar name, if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise NetError(f"no layer is named {name!r}{nearest(name, (layer.name for layer in self.layers))}")

    def relinked(self, layers: Sequence[Layer]) -> Net:
        """Return the net with other layers, whose values get new versions by the order of the layers."""
        return replace(self, layers=tuple(link(self.inputs, layers)))

    def at(self, phase: str = "TEST", stages: Sequence[str] = (), level: int = 0) -> Net:
        """Return the net of one phase (with stages and level), as include and exclude rules select its layers.

        Raises NetError for a layer with both kinds of rules. Source: src/caffe/net.cpp Net::FilterNet.
        """
        state = _State(phase, frozenset(stages), level)
        return self.relinked([layer for layer in self.layers if state.includes(layer)])

    def map(self, change: Callable[[Layer], Layer | None]) -> Net:
        """Return the net with `change(layer)` for each layer; layers for which it returns None are left out."""
        changed = (change(layer) for layer in self.layers)
        return self.relinked([layer for layer in changed if layer is not None])


def link(inputs: Sequence[Value], layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers with versions of their values that follow from the order in which blobs are written."""
    latest = {value.blob: value for value in inputs}
    for layer in layers:
        bottoms = tuple(latest.get(v.blob, Value(v.blob, NOBODY)) for v in layer.bottoms)
        tops = []
        for top in layer.tops:
            last = latest.get(top.blob)
            latest[top.blob] = Value(top.blob, last.version + 1 if last else 0, top.shape)
            tops.append(latest[top.blob])
        yield replace(layer, bottoms=bottoms, tops=tuple(tops))


@dataclass(frozen=True)
class _State:
    """Phase, stages and level of a net. Source: src/caffe/net.cpp Net::StateMeetsRule."""

    phase: str
    stages: frozenset[str]
    level: int

    def includes(self, layer: Layer) -> bool:
        include, exclude = layer.params.include, layer.params.exclude
        if include and exclude:
            raise layer.error("it has both include and exclude rules; Caffe allows only one kind in a layer")
        if include:
            return any(self.meets(rule) for rule in include)
        return not any(self.meets(rule) for rule in exclude)

    def meets(self, rule: NetStateRule) -> bool:
        return (
            (not rule.has("phase") or rule.phase == self.phase)
            and (not rule.has("min_level") or self.level >= rule.min_level)
            and (not rule.has("max_level") or self.level <= rule.max_level)
            and self.stages.issuperset(rule.stage)
            and self.stages.isdisjoint(rule.not_stage)
        )
