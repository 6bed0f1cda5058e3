"""What Caffe asks of a net beyond its layers' own rules: who may write a blob, how much a layer may list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.errors import NetError
from prototxt_gen.ir import Layer, Net, Value, show


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
    for layer in analysis.net.layers:
        yield from map(layer.error, miscounted(layer))
