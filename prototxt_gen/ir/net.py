"""Net, Layer and Value: a net as data, frozen, knowing neither protobuf nor arrays.

A Caffe layer may write its top over its bottom ("in place"). Here every write makes a new `Value`: the same blob name
at a later version. So a net is a plain graph, and the in-place tops come back when the names are written out.
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
"""N×C×H×W for images; any number of axes."""

M = TypeVar("M", bound=Message)
Kind = type[M]  # Layer has a field called `type`

NOBODY = -1
"""The version of a value that no layer and no input makes."""


def show(shape: Shape | None) -> str:
    """Return `1x512x28x28`, `()` for a scalar, `?` where the shape is not known."""
    return "?" if shape is None else "x".join(map(str, shape)) or "()"


@dataclass(frozen=True, slots=True)
class Value:
    """A blob at one moment. `shape` is None where it is not known; it does not count in comparisons."""

    blob: str
    version: int = 0
    shape: Shape | None = field(default=None, compare=False)

    @property
    def channels(self) -> int:
        """The size of axis 1."""
        return self.known_shape[1]

    @property
    def known_shape(self) -> Shape:
        """The shape, or a NetError where it is not known."""
        if self.shape is None:
            raise NetError(f"the shape of blob {self.blob!r} is not known")
        return self.shape


@dataclass(frozen=True)
class Layer:
    """One layer of one net. `params` holds all it says beside name, type, bottoms and tops."""

    name: str
    type: str
    bottoms: tuple[Value, ...]
    tops: tuple[Value, ...]
    params: LayerParameter = field(default_factory=LayerParameter)
    line: int = field(default=0, compare=False)

    def get(self, kind: Kind[M]) -> M:
        """Return the layer's parameters of this kind: `layer.get(PoolingParameter)`; defaults where it has none."""
        value = dict(self.params.set_fields()).get(kind.field)
        return value if isinstance(value, kind) else kind()

    def unknown_fields(self, *kinds: Kind[Message]) -> Iterator[tuple[str, Extra]]:
        """Yield the fields that nothing knows, inside these parameters or beside them in the layer."""
        for extra in self.params.extras:
            yield extra.name, extra
        for kind in kinds:
            yield from self.get(kind).walk_extras(f"{kind.field}.")

    def error(self, problem: str) -> NetError:
        return layer_error(self.name, self.type, problem)


@dataclass(frozen=True)
class Net:
    """Inputs and layers, in order. `params` holds the rest of the file; `source` names the file for error texts.

    A net as read from a train_val holds the layers of both phases; `at` gives the net of one.
    """

    name: str
    inputs: tuple[Value, ...]
    layers: tuple[Layer, ...]
    params: NetParameter = field(default_factory=NetParameter)
    source: str = field(default="", compare=False)

    @cached_property
    def outputs(self) -> tuple[Value, ...]:
        """The values that no layer takes, in the order they are made: what Caffe prints as the net's output."""
        taken = {value for layer in self.layers for value in layer.bottoms}
        return tuple(value for value in self.values() if value not in taken)

    def values(self) -> Iterator[Value]:
        """Yield every value that an input or a layer makes, in order."""
        yield from self.inputs
        for layer in self.layers:
            yield from layer.tops

    def layer(self, name: str) -> Layer:
        """Return the first layer of this name; NetError with the nearest name where there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise NetError(f"no layer is named {name!r}{nearest(name, (layer.name for layer in self.layers))}")

    def relinked(self, layers: Sequence[Layer]) -> Net:
        """Return the net with these layers, each bottom taken anew from the last layer before that wrote its blob."""
        return replace(self, layers=tuple(link(self.inputs, layers)))

    def at(self, phase: str = "TEST", stages: Sequence[str] = (), level: int = 0) -> Net:
        """Return the net of one phase, as Caffe filters it. Source: src/caffe/net.cpp Net::FilterNet."""
        state = _State(phase, frozenset(stages), level)
        return self.relinked([layer for layer in self.layers if state.takes(layer)])

    def map(self, change: Callable[[Layer], Layer | None]) -> Net:
        """Return the net with every layer changed, or left out where `change` gives None."""
        changed = (change(layer) for layer in self.layers)
        return self.relinked([layer for layer in changed if layer is not None])


def link(inputs: Sequence[Value], layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield the layers with the versions of their values set by the order of writing."""
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
    """A phase, its stages and level. Source: src/caffe/net.cpp Net::StateMeetsRule."""

    phase: str
    stages: frozenset[str]
    level: int

    def takes(self, layer: Layer) -> bool:
        include, exclude = layer.params.include, layer.params.exclude
        if include and exclude:
            raise layer.error("it has both include and exclude rules; Caffe takes one kind or the other")
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
