"""What a net costs, layer by layer: shapes, learned parameters, multiply-accumulates, memory of the blobs.

Nothing here guesses: where a shape cannot be known, the row says why, and what depends on it stays unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape, Value, show
from prototxt_gen.layers.base import BlobSpec
from prototxt_gen.schema.caffe_proto import LayerParameter

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Row:
    """One layer's costs. `macs` is None, and a top's shape None, where they are not known; `error` then says why.

    `blocked` tells that only a bottom's shape is missing: the cause lies further up.
    """

    layer: Layer
    bottoms: tuple[Shape | None, ...]
    tops: tuple[Shape | None, ...]
    blobs: dict[str, BlobSpec] = field(default_factory=dict)
    macs: int | None = None
    error: NetError | None = None
    blocked: bool = False

    @property
    def known(self) -> bool:
        return self.error is None

    @property
    def parameters(self) -> int:
        """Learned numbers; BN's moving statistics are not counted."""
        return sum(math.prod(spec.shape) for spec in self.blobs.values() if not spec.statistic)

    @property
    def activation_bytes(self) -> int:
        """Bytes of the blobs this layer adds, as float32; a top written in place adds none."""
        held = {value.blob for value in self.layer.bottoms}
        tops = zip(self.layer.tops, self.tops, strict=True)
        return sum(FLOAT_BYTES * math.prod(shape) for top, shape in tops if shape is not None and top.blob not in held)


@dataclass(frozen=True)
class Analysis:
    """The rows of a net and their totals. Totals count what is known; `complete` tells whether that is everything."""

    net: Net
    rows: tuple[Row, ...]
    shapes: Mapping[Value, Shape]

    @property
    def complete(self) -> bool:
        return all(row.known for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass over the whole batch."""
        return sum(row.macs or 0 for row in self.rows)

    @cached_property
    def parameters(self) -> int:
        """Learned numbers; blobs shared by a common `param` name count once."""
        seen: set[str] = set()
        return sum(math.prod(spec.shape) for row in self.rows for spec in _owned(row, seen) if not spec.statistic)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all blobs held at once, as Caffe does: inputs and every top not written in place."""
        inputs = sum(FLOAT_BYTES * math.prod(self.shapes[v]) for v in self.net.inputs if v in self.shapes)
        return inputs + sum(row.activation_bytes for row in self.rows)


def _owned(row: Row, seen: set[str]) -> Iterator[BlobSpec]:
    """Yield the blobs that are not shared with an earlier layer."""
    for index, spec in enumerate(row.blobs.values()):
        specs = row.layer.params.param
        name = specs[index].name if index < len(specs) else ""
        if name not in seen:
            yield spec
        if name:
            seen.add(name)


def analyse(net: Net, given: Mapping[str, Shape] | None = None) -> Analysis:
    """Infer shapes and costs of a net of one phase. `given` sets the shapes of blobs made by inputs or data layers."""
    given = given or {}
    shapes: dict[Value, Shape] = {}
    for value in net.inputs:
        shape = given.get(value.blob, value.shape)
        if shape is not None:
            shapes[value] = shape
    rows = []
    for layer in net.layers:
        row = _row(layer, tuple(shapes.get(value) for value in layer.bottoms), given)
        shapes.update((value, shape) for value, shape in zip(layer.tops, row.tops, strict=True) if shape is not None)
        rows.append(row)
    return Analysis(net, tuple(rows), shapes)


LayerKey = tuple[str, LayerParameter]
"""What tells the layers of a net of both phases apart: two may have one name, with rules that differ."""


def top_shapes(
    net: Net, given: Mapping[str, Mapping[str, Shape]] | None = None
) -> dict[LayerKey, tuple[Shape | None, ...]]:
    """Return the tops' shapes of a net that holds both phases; those of TRAIN for the layers that are in both.

    `given` holds, for each phase, the shapes of blobs that inputs or data layers make.
    """
    found: dict[LayerKey, tuple[Shape | None, ...]] = {}
    for phase in ("TRAIN", "TEST"):
        for row in analyse(net.at(phase), (given or {}).get(phase)).rows:
            found.setdefault((row.layer.name, row.layer.params), row.tops)
    return found


def _row(layer: Layer, bottoms: tuple[Shape | None, ...], given: Mapping[str, Shape]) -> Row:
    from_outside = _given_tops(layer, given)
    if layer.tops and None not in from_outside:
        return Row(layer, bottoms, from_outside, macs=0)
    try:
        layer_type = layers.layer_type_of(layer)
        missing = [value.blob for value, shape in zip(layer.bottoms, bottoms, strict=True) if shape is None]
        if missing:
            layer_type.check_arity(layer)
            return _blocked(layer, bottoms, f"the shape of its bottom {missing[0]!r} is not known")
        tops, blobs, macs = _costs(layer, [shape for shape in bottoms if shape is not None])
        merged = tuple(new or old for new, old in zip(from_outside, tops, strict=True))
        return Row(layer, bottoms, merged, blobs, macs)
    except NetError as error:
        error.__context__ = None  # with the traceback it would keep every frame alive, a net's worth of them
        return Row(layer, bottoms, from_outside, error=error.with_traceback(None))


def makes_data(layer: Layer) -> bool:
    """Whether a layer's tops come from outside the net: a data layer, or one of unknown type without bottoms."""
    layer_type = layers.find_layer_type(layer.type)
    if layer_type is None or layer_type.type == "Python":
        return not layer.bottoms
    return layer_type.data


def _given_tops(layer: Layer, given: Mapping[str, Shape]) -> tuple[Shape | None, ...]:
    """Return what the caller says of the tops of a layer without bottoms, Python layers among them."""
    layer_type = layers.find_layer_type(layer.type)
    if layer.bottoms or not given:
        return (None,) * len(layer.tops)
    found = [given.get(top.blob) for top in layer.tops]
    if layer_type is not None and layer_type.labels and len(found) == 2 and found[0] is not None:
        found[1] = found[1] or found[0][:1]
    return tuple(found)


Costs = tuple[tuple[Shape, ...], dict[str, BlobSpec], int]


def _costs(layer: Layer, bottoms: Sequence[Shape]) -> Costs:
    """Return top shapes, blobs and MACs. Deep nets repeat few layers: those alike but for their names are done once."""
    places = {value.blob: index for index, value in reversed(list(enumerate(layer.bottoms + layer.tops)))}
    ends = tuple(places[value.blob] for value in layer.bottoms + layer.tops)
    try:
        return _costs_of_like(layer.type, layer.params, tuple(bottoms), ends)
    except NetError:
        return _costs_of(layer, bottoms)  # again, so that the error names this layer


@lru_cache(maxsize=4096)
def _costs_of_like(type_: str, params: LayerParameter, bottoms: tuple[Shape, ...], ends: tuple[int, ...]) -> Costs:
    values = tuple(Value(str(end)) for end in ends)
    return _costs_of(Layer("", type_, values[: len(bottoms)], values[len(bottoms) :], params), bottoms)


def _costs_of(layer: Layer, bottoms: Sequence[Shape]) -> Costs:
    layer_type = layers.layer_type_of(layer)
    tops = layer_type.infer(layer, bottoms)
    return tops, layer_type.blobs(layer, bottoms), layer_type.macs(layer, bottoms, tops)


def _blocked(layer: Layer, bottoms: tuple[Shape | None, ...], why: str) -> Row:
    error = UnsupportedError(f"layer {layer.name!r} ({layer.type}): {why}")
    return Row(layer, bottoms, (None,) * len(layer.tops), error=error, blocked=True)


def resized(net: Net, size: Sequence[int]) -> dict[str, Shape]:
    """Return shapes for `analyse` that give the net's first image input this height and width.

    `size` is one number (square), two (height, width), three (channels, height, width), or a whole N×C×H×W shape.
    """
    if len(size) > 2:
        return {_first_blob(net): tuple(size) if len(size) != 3 else (_batch(net), *size)}
    height, width = (size[0], size[-1])
    for value in [*net.inputs, *_input_tops(net)]:
        if value.shape is not None and len(value.shape) == 4:
            return {value.blob: (*value.shape[:2], height, width)}
    raise NetError(f"no input of shape N×C×H×W to resize to {show((height, width))}; give CxHxW or NxCxHxW")


def _input_tops(net: Net) -> Iterator[Value]:
    """Yield the tops of data layers, with their shapes where these are known."""
    for row in analyse(net).rows:
        if makes_data(row.layer):
            yield from (Value(v.blob, v.version, s) for v, s in zip(row.layer.tops, row.tops, strict=True))


def _first_blob(net: Net) -> str:
    first = next(net.values(), None)
    if first is None:
        raise NetError("the net has no input and no layer")
    return first.blob


def _batch(net: Net) -> int:
    """Return the batch of the net's first data layer as its parameters have it, or 1."""
    for layer in net.layers:
        for _, own in layer.params.set_fields() if makes_data(layer) else ():
            batch = getattr(own, "batch_size", 0)
            if batch:
                return int(batch)
    return 1
