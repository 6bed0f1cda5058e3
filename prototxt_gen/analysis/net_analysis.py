"""Analysis of a net, layer by layer: shapes, learned parameters, multiply-accumulates (MACs), memory of the blobs.

No shape is guessed: if one cannot be inferred, the row of the layer has the error, and later layers stay unknown.
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
    """Shapes and costs of one layer. Unknown shapes and `macs` are None; `error` then gives the reason.

    `blobs` are the learned blobs by role. `blocked` means that only the shape of a bottom is missing, so that the cause
    is in an earlier layer.
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
        """Whether all shapes and costs of the layer are known."""
        return self.error is None

    @property
    def parameters(self) -> int:
        """Number of learned parameters; moving statistics of batch normalisation are not counted."""
        return sum(math.prod(spec.shape) for spec in self.blobs.values() if not spec.statistic)

    @property
    def activation_bytes(self) -> int:
        """Bytes of the tops of this layer as float32; tops written in place are not counted."""
        bottoms = {value.blob for value in self.layer.bottoms}
        tops = zip(self.layer.tops, self.tops, strict=True)
        return sum(
            FLOAT_BYTES * math.prod(shape) for top, shape in tops if shape is not None and top.blob not in bottoms
        )


@dataclass(frozen=True)
class Analysis:
    """Shapes and costs of a net of one phase. Totals count only what is known; see `complete`.

    `rows` are in the order of the layers; `shapes` are the known shapes by value.
    """

    net: Net
    rows: tuple[Row, ...]
    shapes: Mapping[Value, Shape]

    @property
    def complete(self) -> bool:
        """Whether all shapes and costs of all layers are known."""
        return all(row.known for row in self.rows)

    @property
    def macs(self) -> int:
        """Number of multiply-accumulates of one forward pass over the whole batch."""
        return sum(row.macs or 0 for row in self.rows)

    @cached_property
    def parameters(self) -> int:
        """Number of learned parameters; blobs shared through the name of a `param` are counted once."""
        seen: set[str] = set()
        return sum(
            math.prod(spec.shape) for row in self.rows for spec in _unshared_blobs(row, seen) if not spec.statistic
        )

    @property
    def activation_bytes(self) -> int:
        """Bytes of all blobs, which Caffe keeps in memory at the same time: inputs, and tops not written in place."""
        inputs = sum(FLOAT_BYTES * math.prod(self.shapes[v]) for v in self.net.inputs if v in self.shapes)
        return inputs + sum(row.activation_bytes for row in self.rows)


def _unshared_blobs(row: Row, seen: set[str]) -> Iterator[BlobSpec]:
    """Yield the blobs that are not shared with an earlier layer."""
    for index, spec in enumerate(row.blobs.values()):
        specs = row.layer.params.param
        name = specs[index].name if index < len(specs) else ""
        if name not in seen:
            yield spec
        if name:
            seen.add(name)


def analyse(net: Net, input_shapes: Mapping[str, Shape] | None = None) -> Analysis:
    """Infer shapes and costs of a net of one phase, and return them as an Analysis. Errors are in its rows.

    `input_shapes` gives or overrules shapes of blobs that are inputs or tops of data layers.
    """
    input_shapes = input_shapes or {}
    shapes: dict[Value, Shape] = {}
    for value in net.inputs:
        shape = input_shapes.get(value.blob, value.shape)
        if shape is not None:
            shapes[value] = shape
    rows = []
    for layer in net.layers:
        row = _analyse_layer(layer, tuple(shapes.get(value) for value in layer.bottoms), input_shapes)
        shapes.update((value, shape) for value, shape in zip(layer.tops, row.tops, strict=True) if shape is not None)
        rows.append(row)
    return Analysis(net, tuple(rows), shapes)


LayerKey = tuple[str, LayerParameter]
"""Key of a layer in a net of all phases: name and parameters, as layers of two phases may have the same name."""


def top_shapes(
    net: Net, input_shapes_of_phase: Mapping[str, Mapping[str, Shape]] | None = None
) -> dict[LayerKey, tuple[Shape | None, ...]]:
    """Return the shapes of the tops of each layer of a net of all phases; layers of both phases have those of TRAIN.

    `input_shapes_of_phase` gives, for each phase, shapes of blobs that are inputs or tops of data layers.
    """
    shapes: dict[LayerKey, tuple[Shape | None, ...]] = {}
    for phase in ("TRAIN", "TEST"):
        for row in analyse(net.at(phase), (input_shapes_of_phase or {}).get(phase)).rows:
            shapes.setdefault((row.layer.name, row.layer.params), row.tops)
    return shapes


def _analyse_layer(layer: Layer, bottoms: tuple[Shape | None, ...], input_shapes: Mapping[str, Shape]) -> Row:
    given_tops = _given_top_shapes(layer, input_shapes)
    if layer.tops and None not in given_tops:
        return Row(layer, bottoms, given_tops, macs=0, error=data_layer_refusal(layer))
    try:
        layer_type = layers.layer_type_of(layer)
        missing = [value.blob for value, shape in zip(layer.bottoms, bottoms, strict=True) if shape is None]
        if missing:
            layer_type.check_arity(layer)
            return _blocked_row(layer, bottoms, f"the shape of its bottom {missing[0]!r} is unknown")
        tops, blobs, macs = _layer_costs(layer, [shape for shape in bottoms if shape is not None])
        merged = tuple(given or inferred for given, inferred in zip(given_tops, tops, strict=True))
        return Row(layer, bottoms, merged, blobs, macs)
    except NetError as error:
        error.__context__ = None  # context and traceback would keep the frames, and so much memory, alive
        return Row(layer, bottoms, given_tops, error=error.with_traceback(None))


def data_layer_refusal(layer: Layer) -> NetError | None:
    """Return the error for which Caffe refuses a data layer, although the shapes of its tops are given; or None."""
    try:
        layers.layer_type_of(layer).infer(layer, ())
    except UnsupportedError:
        return None  # the prototxt does not specify a shape, or the type is unknown
    except NetError as error:
        error.__context__ = None
        return error.with_traceback(None)
    return None


def is_data_layer(layer: Layer) -> bool:
    """Return whether the tops come from outside the net: a data layer, or a Python or unknown type without bottoms."""
    layer_type = layers.find_layer_type(layer.type)
    if layer_type is None or layer_type.type == "Python":
        return not layer.bottoms
    return layer_type.data


def _given_top_shapes(layer: Layer, input_shapes: Mapping[str, Shape]) -> tuple[Shape | None, ...]:
    """Return the shapes that `input_shapes` gives for the tops of a layer without bottoms; None for other tops.

    A data layer with image and label needs only the shape of the image: the label then has the same batch size.
    """
    layer_type = layers.find_layer_type(layer.type)
    if layer.bottoms or not input_shapes:
        return (None,) * len(layer.tops)
    shapes = [input_shapes.get(top.blob) for top in layer.tops]
    if layer_type is not None and layer_type.labels and len(shapes) == 2 and shapes[0] is not None:
        shapes[1] = shapes[1] or shapes[0][:1]
    return tuple(shapes)


Costs = tuple[tuple[Shape, ...], dict[str, BlobSpec], int]


def _layer_costs(layer: Layer, bottoms: Sequence[Shape]) -> Costs:
    """Return top shapes, blobs and MACs. Layers that differ only in names share a cached result."""
    values = layer.bottoms + layer.tops
    first_index = {value.blob: index for index, value in reversed(list(enumerate(values)))}
    wiring = tuple(first_index[value.blob] for value in values)
    try:
        return _cached_costs(layer.type, layer.params, tuple(bottoms), wiring)
    except NetError:
        return _compute_costs(layer, bottoms)  # computed again, so that the error names this layer


@lru_cache(maxsize=4096)
def _cached_costs(type_: str, params: LayerParameter, bottoms: tuple[Shape, ...], wiring: tuple[int, ...]) -> Costs:
    values = tuple(Value(str(index)) for index in wiring)
    return _compute_costs(Layer("", type_, values[: len(bottoms)], values[len(bottoms) :], params), bottoms)


def _compute_costs(layer: Layer, bottoms: Sequence[Shape]) -> Costs:
    layer_type = layers.layer_type_of(layer)
    tops = layer_type.infer(layer, bottoms)
    return tops, layer_type.blobs(layer, bottoms), layer_type.macs(layer, bottoms, tops)


def _blocked_row(layer: Layer, bottoms: tuple[Shape | None, ...], reason: str) -> Row:
    error = UnsupportedError(f"layer {layer.name!r} ({layer.type}): {reason}")
    return Row(layer, bottoms, (None,) * len(layer.tops), error=error, blocked=True)


def resized_input_shapes(net: Net, size: Sequence[int]) -> dict[str, Shape]:
    """Return `input_shapes` for `analyse` that give the net's first image input another size.

    `size` is one number (square), height and width, channels, height and width, or a whole shape N×C×H×W. Raises
    NetError if no input has a known shape N×C×H×W, which one or two numbers need.
    """
    if len(size) > 2:
        return {_first_blob(net): tuple(size) if len(size) != 3 else (_declared_batch(net), *size)}
    height, width = (size[0], size[-1])
    for value in [*net.inputs, *_data_tops(net)]:
        if value.shape is not None and len(value.shape) == 4:
            return {value.blob: (*value.shape[:2], height, width)}
    raise NetError(f"there is no input N×C×H×W that can be resized to {show((height, width))}; give CxHxW or NxCxHxW")


def _data_tops(net: Net) -> Iterator[Value]:
    """Yield the tops of data layers, with their shapes if known."""
    for row in analyse(net).rows:
        if is_data_layer(row.layer):
            yield from (Value(v.blob, v.version, s) for v, s in zip(row.layer.tops, row.tops, strict=True))


def _first_blob(net: Net) -> str:
    first = next(net.values(), None)
    if first is None:
        raise NetError("the net has no input and no layer")
    return first.blob


def _declared_batch(net: Net) -> int:
    """Return the batch size in the parameters of the net's first data layer, or 1 if there is none."""
    for layer in net.layers:
        for _, params in layer.params.set_fields() if is_data_layer(layer) else ():
            batch = getattr(params, "batch_size", 0)
            if batch:
                return int(batch)
    return 1
