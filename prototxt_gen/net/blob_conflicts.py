"""Conflicts over blobs in a net: blobs written twice, unsafe writes in place, propagate_down or loss_weight miscounted.

These are rules of Caffe that concern several layers at once, beside the rules of each layer type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Value, show


def is_in_place(layer: Layer, index: int) -> bool:
    """Return whether top number `index` has the same blob as bottom number `index`, so that it overwrites it."""
    return index < len(layer.bottoms) and layer.bottoms[index].blob == layer.tops[index].blob


def blobs_written_twice(net: Net) -> Iterator[tuple[Layer, str]]:
    """Yield (layer, problem) for each top whose blob another layer has already written, in a net of one phase.

    Source: src/caffe/net.cpp Net::AppendTop. Where two layers read a blob, src/caffe/util/insert_splits.cpp gives each
    layer a copy with another name, so neither layer can write it in place.
    """
    makers = {value: layer for layer in net.layers for value in layer.tops}
    uses = Counter(value for layer in net.layers for value in layer.bottoms)
    for layer in net.layers:
        for index, top in enumerate(layer.tops):
            if top.version > 0 and not is_in_place(layer, index):
                before = makers.get(Value(top.blob, top.version - 1))
                where = f"layer {before.name!r} in line {before.line}" if before else "an input of the net"
                yield (
                    layer,
                    f"its top {top.blob!r} is already written by {where}, and cannot be written in place, "
                    f"because it is not bottom {index} of this layer",
                )
            elif is_in_place(layer, index) and uses[layer.bottoms[index]] > 1:
                readers = (one for one in net.layers if one is not layer and layer.bottoms[index] in one.bottoms)
                other = next(readers, layer)
                yield (
                    layer,
                    f"it overwrites {top.blob!r} in place, which layer {other.name!r} in line {other.line} reads too",
                )


def overwritten_shared_memory(net: Net) -> Iterator[tuple[Layer, str]]:
    """Yield (layer, problem) for each in-place layer that changes memory shared with another blob or a learned blob.

    Some types let their top share the memory of their bottom (Blob::ShareData in src/caffe/layers/split_layer.cpp,
    flatten_layer.cpp, reshape_layer.cpp, slice_layer.cpp, concat_layer.cpp): a layer that reads the bottom afterwards
    gets the overwritten values. Dropout is no problem: outside training it leaves the values unchanged.
    """
    last_reader = {value: index for index, layer in enumerate(net.layers) for value in layer.bottoms}
    memory: MemorySharers = {}
    for index, layer in enumerate(net.layers):
        for top_index, top in enumerate(layer.tops):
            sharers = _memory_sharers(layer, top_index, memory)
            if is_in_place(layer, top_index) and layer.type != "Dropout":
                sharers[:] = [one for one in sharers if isinstance(one, Layer) or last_reader.get(one, -1) > index]
                for sharer in sharers:
                    yield (
                        layer,
                        f"it overwrites {top.blob!r} in place, {_overwritten_message(net, sharer, last_reader)}",
                    )
            memory[top] = sharers
            sharers.append(top)


MemorySharers = dict[Value, list[Value | Layer]]
"""For each value the list of everything in its memory, itself included; values that share memory share this list.

A `Layer` in a list stands for the learned blob of that layer (type Parameter).
"""


def _memory_sharers(layer: Layer, top_index: int, memory: MemorySharers) -> list[Value | Layer]:
    """Return everything that is in the memory which top number `top_index` of the layer is written to."""
    layer_type = layers.find_layer_type(layer.type)
    if not is_in_place(layer, top_index) and (layer_type is None or not layer_type.shares_memory(layer)):
        return []
    if not layer.bottoms:
        return [layer]
    bottom = layer.bottoms[top_index if is_in_place(layer, top_index) else 0]
    return memory.setdefault(bottom, [bottom])


def _overwritten_message(net: Net, sharer: Value | Layer, last_reader: Mapping[Value, int]) -> str:
    if isinstance(sharer, Layer):
        return f"which in Caffe overwrites the learned blob of layer {sharer.name!r}"
    reader = net.layers[last_reader[sharer]]
    return (
        f"which in Caffe shares its memory with {sharer.blob!r}, and layer {reader.name!r} in line {reader.line} reads "
        f"{sharer.blob!r} afterwards"
    )


def in_place_shape_changes(rows: Sequence[Row]) -> Iterator[tuple[Layer, str]]:
    """Yield (layer, problem) for each in-place layer whose top has another shape than the bottom it overwrites."""
    for row in rows:
        for index, (top, shape) in enumerate(zip(row.layer.tops, row.tops, strict=True)):
            before = row.bottoms[index] if is_in_place(row.layer, index) else None
            if before is not None and shape is not None and before != shape:
                yield (
                    row.layer,
                    f"it writes {top.blob!r} in place, but its top is {show(shape)} and its bottom {show(before)}",
                )


def wrong_field_counts(layer: Layer) -> Iterator[str]:
    """Yield a sentence for each repeated field (propagate_down, loss_weight) with the wrong number of values.

    Source: src/caffe/net.cpp Net::Init; include/caffe/layer.hpp Layer::SetLossWeights.
    """
    for name, blobs, ends in (("propagate_down", layer.bottoms, "bottom"), ("loss_weight", layer.tops, "top")):
        values = getattr(layer.params, name)
        if values and len(values) != len(blobs):
            count = f"{len(blobs)} {ends}{'s' if len(blobs) != 1 else ''}"
            yield f"it has {len(values)} {name} for {count}; Caffe requires one {name} for each {ends}"


def conflict_errors(analysis: Analysis) -> Iterator[NetError]:
    """Yield an error for each conflict of this module in the analysed net of one phase."""
    for layer, problem in (*blobs_written_twice(analysis.net), *in_place_shape_changes(analysis.rows)):
        yield layer.error(problem)
    for layer, problem in overwritten_shared_memory(analysis.net):
        yield UnsupportedError(f"layer {layer.name!r} ({layer.type}): {problem}; prototxt-gen does not support this")
    for layer in analysis.net.layers:
        yield from map(layer.error, wrong_field_counts(layer))
