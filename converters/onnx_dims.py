"""Which dims of an ONNX model vary: those that nothing in its graph depends on. Found by lowering the net again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from converters.graph import Graph, same_numbers
from converters.subject import bounds, reanalysed
from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, Value
from prototxt_gen.lowering import sources

Dims = tuple[int | str, ...]
Again = Callable[[Analysis], Graph]
"""Lowers the same net with other shapes."""
_SIZE_STEP = 32


def dims_of(
    analysis: Analysis, graph: Graph, again: Again, dynamic_size: bool
) -> tuple[dict[Value, Dims], Sequence[str]]:
    """Return the dims of every value, those that vary as names, and sentences on what does not.

    A dim varies if the net is also right, and its graph the same to the byte, with another batch (or size) declared.
    UnsupportedError, with `dynamic_size`, where the graph depends on the size.
    """
    dims: dict[Value, list[int | str]] = {value: list(shape) for value, shape in analysis.shapes.items()}
    remarks = _vary_batch(analysis, graph, again, dims)
    if dynamic_size:
        _vary_size(analysis, graph, again, dims)
    for value in _sized_by_data(analysis):
        dims[value] = [f"{value.blob}_{index}" for index in range(len(dims[value]))]
    return {value: tuple(found) for value, found in dims.items()}, remarks


def _vary_batch(analysis: Analysis, graph: Graph, again: Again, dims: dict[Value, list[int | str]]) -> list[str]:
    other = reanalysed(analysis, _more_images(analysis))
    if not other.complete:
        cause = next(row.error for row in other.rows if row.error is not None)
        return [f"the batch is fixed: {cause}"]
    fixed = _relearned(analysis, other) or _differing(graph, again(other))
    if fixed:
        return [f"the batch is fixed: layer {_listed(fixed)} goes by it"]
    batch = _batch(analysis)
    for value, index in _changes(analysis, other):
        follows = index == 0 and analysis.shapes[value][0] == batch
        dims[value][index] = "N" if follows else f"N_{value.blob}_{index}"
    return []


def _more_images(analysis: Analysis) -> dict[str, Shape]:
    """Return the sources' shapes with one image more, for those that have the batch as their first axis."""
    batch = _batch(analysis)
    return {blob: (batch + 1, *shape[1:]) for blob, shape in bounds(analysis).items() if shape[:1] == (batch,)}


def _batch(analysis: Analysis) -> int:
    found = sources(analysis.net)
    shape = analysis.shapes[found[0]] if found else ()
    return shape[0] if shape else 1


def _vary_size(analysis: Analysis, graph: Graph, again: Again, dims: dict[Value, list[int | str]]) -> None:
    for axis, letter in ((2, "H"), (3, "W")):
        grown = {
            blob: (*shape[:axis], shape[axis] + _SIZE_STEP, *shape[axis + 1 :])
            for blob, shape in bounds(analysis).items()
            if len(shape) == 4
        }
        other = reanalysed(analysis, grown)
        causes = [str(row.error) for row in other.rows if row.error is not None and not row.blocked]
        fixed = [] if causes else _relearned(analysis, other) or _differing(graph, again(other))
        if causes or fixed:
            why = causes[0] if causes else f"layer {_listed(fixed)} goes by it"
            raise UnsupportedError(f"{analysis.net.name}: its input size cannot be left open: {why}")
        for value, index in _changes(analysis, other):
            of_image = value in sources(analysis.net)
            dims[value][index] = letter if of_image else f"{letter}_{value.blob}_{index}"


def _changes(one: Analysis, other: Analysis) -> Iterable[tuple[Value, int]]:
    """Yield (value, axis) wherever the two differ."""
    for value, shape in one.shapes.items():
        for index, (old, new) in enumerate(zip(shape, other.shapes[value], strict=True)):
            if old != new:
                yield value, index


def _relearned(one: Analysis, other: Analysis) -> list[str]:
    """Return the layers whose weights would have another shape."""
    pairs = zip(one.rows, other.rows, strict=True)
    return [f"{a.layer.name}/" for a, b in pairs if _learned_shapes(a) != _learned_shapes(b)]


def _learned_shapes(row: Row) -> list[Shape]:
    return [spec.shape for spec in row.blobs.values()]


def _differing(one: Graph, other: Graph) -> list[str]:
    """Return what differs: names of nodes, which begin with the layer's name, and of arrays."""
    if len(one.nodes) != len(other.nodes):
        return [node.name for node in one.nodes if node.name not in {n.name for n in other.nodes}] or ["a layer"]
    nodes = [a.name for a, b in zip(one.nodes, other.nodes, strict=True) if a != b]
    names = [name for name, array in one.arrays.items() if not _same_array(other.arrays, name, array)]
    return nodes + names


def _same_array(others: Mapping[str, object], name: str, array: object) -> bool:
    import numpy as np

    other = others.get(name)
    if not isinstance(other, np.ndarray) or not isinstance(array, np.ndarray) or other.shape != array.shape:
        return False
    return same_numbers(array, other) or array.tobytes() == other.tobytes()


def _listed(names: Sequence[str]) -> str:
    shown = list(dict.fromkeys(name.rsplit("/", 1)[0] for name in names))
    return ", ".join(map(repr, shown[:5])) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _sized_by_data(analysis: Analysis) -> list[Value]:
    """Return the values whose size is known only when the net has run, and all that is made of them."""
    found: dict[Value, None] = {}
    for layer in analysis.net.layers:
        if _depends_on_data(layer) or any(value in found for value in layer.bottoms):
            found.update(dict.fromkeys(layer.tops))
    return list(found)


def _depends_on_data(layer: Layer) -> bool:
    return layer.type == "Filter" or layers.room(layer).sized_by_data
