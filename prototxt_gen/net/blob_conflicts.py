"""What Caffe asks of a net beyond its layers' own rules: who may write a blob, how much a layer may list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Value, show

LEARNED = "\0"
"""Stands for the name of a learned blob, which is no blob of the net."""


def in_place(layer: Layer, index: int) -> bool:
    """Whether a top is written over the bottom at its own place."""
    return index < len(layer.bottoms) and layer.bottoms[index].blob == layer.tops[index].blob


def written_twice(net: Net) -> Iterator[tuple[Layer, str]]:
    """Yield (layer, problem) for each top that Caffe lets no layer write, in a net of one phase.

    Source: src/caffe/net.cpp Net::AppendTop. Where two layers take a blob, src/caffe/util/insert_splits.cpp gives each
    a copy of another name, and writing over it is no longer in place.
    """
    makers = {value: layer for layer in net.layers for value in layer.tops}
    uses = Counter(value for layer in net.layers for value in layer.bottoms)
    for layer in net.layers:
        for index, top in enumerate(layer.tops):
            if top.version > 0 and not in_place(layer, index):
                before = makers.get(Value(top.blob, top.version - 1))
                where = f"by layer {before.name!r} of line {before.line}" if before else "as an input of the net"
                yield layer, f"its top {top.blob!r} is made already, {where}, and it is not its bottom {index}"
            elif in_place(layer, index) and uses[layer.bottoms[index]] > 1:
                other = next(
                    (one for one in net.layers if one is not layer and layer.bottoms[index] in one.bottoms), layer
                )
                yield layer, f"it writes over {top.blob!r}, which layer {other.name!r} of line {other.line} takes too"


def overwritten(net: Net) -> Iterator[tuple[Layer, str]]:
    """Yield (layer, problem) where a layer in place changes memory that another blob shares, or a learned blob itself.

    Some types give their top their bottom's memory (Blob::ShareData in src/caffe/layers/split_layer.cpp,
    flatten_layer.cpp, reshape_layer.cpp, slice_layer.cpp, concat_layer.cpp): who takes the bottom later on gets what
    was written over it. Dropout writes in place what is there already, where it does not train.
    """
    last = {value: index for index, layer in enumerate(net.layers) for value in layer.bottoms}
    memory: Memory = {}
    for index, layer in enumerate(net.layers):
        for place, top in enumerate(layer.tops):
            shared = _memory(layer, place, memory)
            if in_place(layer, place) and layer.type != "Dropout":
                shared[:] = [one for one in shared if isinstance(one, Layer) or last.get(one, -1) > index]
                for one in shared:
                    yield layer, f"it writes over {top.blob!r}, {_lost(net, one, last)}"
            memory[top] = shared
            shared.append(top)


Memory = dict[Value, list[Value | Layer]]
"""What lies in the memory of each value, itself among it; who shares it has the same list. A layer: what it learned."""


def _memory(layer: Layer, place: int, memory: Memory) -> list[Value | Layer]:
    """Return what lies where the layer's top of this place is written."""
    layer_type = layers.find_layer_type(layer.type)
    if not in_place(layer, place) and (layer_type is None or not layer_type.shares_memory(layer)):
        return []
    if not layer.bottoms:
        return [layer]
    below = layer.bottoms[place if in_place(layer, place) else 0]
    return memory.setdefault(below, [below])


def _lost(net: Net, one: Value | Layer, last: Mapping[Value, int]) -> str:
    if isinstance(one, Layer):
        return f"and so over what layer {one.name!r} has learned"
    reader = net.layers[last[one]]
    return (
        f"whose memory in Caffe is that of {one.blob!r} too, and layer {reader.name!r} of line {reader.line} takes "
        "that later"
    )


def misshapen(rows: Sequence[Row]) -> Iterator[tuple[Layer, str]]:
    """Yield (layer, problem) where a layer in place would change the shape of what it still reads."""
    for row in rows:
        for index, (top, shape) in enumerate(zip(row.layer.tops, row.tops, strict=True)):
            before = row.bottoms[index] if in_place(row.layer, index) else None
            if before is not None and shape is not None and before != shape:
                yield (
                    row.layer,
                    f"it writes {top.blob!r} in place, but its top is {show(shape)} and its bottom {show(before)}",
                )


def miscounted(layer: Layer) -> Iterator[str]:
    """Yield what a layer lists another number of times than Caffe wants.

    Source: src/caffe/net.cpp Net::Init; include/caffe/layer.hpp Layer::SetLossWeights.
    """
    for name, blobs, what in (("propagate_down", layer.bottoms, "bottoms"), ("loss_weight", layer.tops, "tops")):
        given = getattr(layer.params, name)
        if given and len(given) != len(blobs):
            yield f"{name} is given {len(given)} times; it has {len(blobs)} {what}, and takes one for each"


def faults(analysis: Analysis) -> Iterator[NetError]:
    """Yield an error for everything of this kind that is wrong with a net of one phase."""
    for layer, problem in (*written_twice(analysis.net), *misshapen(analysis.rows)):
        yield layer.error(problem)
    for layer, problem in overwritten(analysis.net):
        yield UnsupportedError(f"layer {layer.name!r} ({layer.type}): {problem}; that is not done here")
    for layer in analysis.net.layers:
        yield from map(layer.error, miscounted(layer))
