"""Which dims of an ONNX model vary: those that nothing in its graph depends on. Found by lowering the net again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from converters.common.other_sizes import batch_of, more_images, other_sizes, relearned, resized
from converters.onnx_export.onnx_graph import Graph, same_numbers
from prototxt_gen import layers
from prototxt_gen.analysis import Analysis
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Value
from prototxt_gen.net.lowering_checks import sources

Dims = tuple[int | str, ...]
Again = Callable[[Analysis], Graph]
"""Lowers the same net with other shapes."""
_SIZE_STEP = 32


def dims_of(
    analysis: Analysis, graph: Graph, again: Again, dynamic_size: bool
) -> tuple[dict[Value, Dims], Sequence[str]]:
    """Return the dims of every value, those that vary as names, and sentences on what does not.

    A dim varies if the net is also right, and its graph the same to the byte, with another batch (or size) declared.
    UnsupportedError, with `dynamic_size`, where the graph depends on the size, at any of many sizes.
    """
    dims: dict[Value, list[int | str]] = {value: list(shape) for value, shape in analysis.shapes.items()}
    remarks = _vary_batch(analysis, graph, again, dims)
    if dynamic_size:
        _vary_size(analysis, graph, again, dims)
    for value in _sized_by_data(analysis):
        dims[value] = [f"{value.blob}_{index}" for index in range(len(dims[value]))]
    return {value: tuple(found) for value, found in dims.items()}, remarks


def _vary_batch(analysis: Analysis, graph: Graph, again: Again, dims: dict[Value, list[int | str]]) -> list[str]:
    other = more_images(analysis)
    if not other.complete:
        cause = next(row.error for row in other.rows if row.error is not None)
        return [f"the batch is fixed: {cause}"]
    fixed = _fixed(analysis, other, graph, again)
    if fixed:
        return [f"the batch is fixed: layer {_listed(fixed)} goes by it"]
    batch = batch_of(analysis)
    for value, index in _changes(analysis, other):
        follows = index == 0 and analysis.shapes[value][0] == batch
        dims[value][index] = "N" if follows else f"N_{value.blob}_{index}"
    return []


def _vary_size(analysis: Analysis, graph: Graph, again: Again, dims: dict[Value, list[int | str]]) -> None:
    for letter, step in (("H", (_SIZE_STEP, 0)), ("W", (0, _SIZE_STEP))):
        other = resized(analysis, *step)
        causes = [str(row.error) for row in other.rows if row.error is not None and not row.blocked]
        _check_open(analysis, causes or _going_by_size(analysis, other, graph, again))
        for value, index in _changes(analysis, other):
            of_image = value in sources(analysis.net)
            dims[value][index] = letter if of_image else f"{letter}_{value.blob}_{index}"
    for other in other_sizes(analysis):
        _check_open(analysis, _going_by_size(analysis, other, graph, again))


def _going_by_size(analysis: Analysis, other: Analysis, graph: Graph, again: Again) -> list[str]:
    fixed = _fixed(analysis, other, graph, again)
    return [f"layer {_listed(fixed)} goes by it"] if fixed else []


def _fixed(analysis: Analysis, other: Analysis, graph: Graph, again: Again) -> list[str]:
    """Return what goes by the shapes: names that begin with the layer's."""
    return [f"{layer.name}/" for layer in relearned(analysis, other)] or _differing(graph, again(other))


def _check_open(analysis: Analysis, causes: Sequence[str]) -> None:
    if causes:
        raise UnsupportedError(f"{analysis.net.name}: its input size cannot be left open: {causes[0]}")


def _changes(one: Analysis, other: Analysis) -> Iterable[tuple[Value, int]]:
    """Yield (value, axis) wherever the two differ."""
    for value, shape in one.shapes.items():
        for index, (old, new) in enumerate(zip(shape, other.shapes[value], strict=True)):
            if old != new:
                yield value, index


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
    return layer.type == "Filter" or layers.layer_type_of(layer).sized_by_data
