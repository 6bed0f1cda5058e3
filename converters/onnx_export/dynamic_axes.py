"""Finding the axes of an ONNX model that can be dynamic: those that nothing in its graph depends on.

The net is lowered again with another batch or image size, and both graphs are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from converters.common.names import listed_names, valid_utf8
from converters.common.other_sizes import (
    at_other_image_sizes,
    batch_size,
    layers_with_other_blob_shapes,
    with_larger_batch,
    with_larger_images,
)
from converters.onnx_export.onnx_graph import Graph, has_same_numbers
from prototxt_gen import layers
from prototxt_gen.analysis import Analysis
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Value
from prototxt_gen.net.lowering_checks import net_inputs

OnnxShape = tuple[int | str, ...]
"""The shape of an ONNX value; a dynamic axis has a name in place of a number."""
LowerGraph = Callable[[Analysis], Graph]
"""A function that lowers the same net with other shapes."""
_EXTRA_PIXELS = 32


def dynamic_shapes(
    analysis: Analysis, graph: Graph, lower_graph: LowerGraph, dynamic_size: bool
) -> tuple[dict[Value, OnnxShape], Sequence[str]]:
    """Return the ONNX shape of every value, and remarks on axes that stay fixed.

    An axis is dynamic if the net is valid with another batch (or image size), and its graph is then byte for byte the
    same. `dynamic_size`: height and width have to be dynamic, which is checked at many sizes; raises UnsupportedError
    if the graph depends on them.
    """
    shapes: dict[Value, list[int | str]] = {value: list(shape) for value, shape in analysis.shapes.items()}
    remarks = _make_batch_dynamic(analysis, graph, lower_graph, shapes)
    if dynamic_size:
        _make_image_size_dynamic(analysis, graph, lower_graph, shapes)
    for value in _values_sized_by_data(analysis):
        shapes[value] = [f"{valid_utf8(value.blob)}_{axis}" for axis in range(len(shapes[value]))]
    return {value: tuple(shape) for value, shape in shapes.items()}, remarks


def _make_batch_dynamic(
    analysis: Analysis, graph: Graph, lower_graph: LowerGraph, shapes: dict[Value, list[int | str]]
) -> list[str]:
    """Name the axes that follow the batch size in `shapes`; return a remark if the batch stays fixed."""
    larger = with_larger_batch(analysis)
    if not larger.complete:
        cause = next(row.error for row in larger.rows if row.error is not None)
        return [f"the batch is fixed: {cause}"]
    dependent = _shape_dependent_names(analysis, larger, graph, lower_graph)
    if dependent:
        return [f"the batch is fixed: layer {_listed_layers(dependent)} depends on it"]
    batch = batch_size(analysis)
    for value, axis in _changed_axes(analysis, larger):
        is_batch_axis = axis == 0 and analysis.shapes[value][0] == batch
        shapes[value][axis] = "N" if is_batch_axis else f"N_{valid_utf8(value.blob)}_{axis}"
    return []


def _make_image_size_dynamic(
    analysis: Analysis, graph: Graph, lower_graph: LowerGraph, shapes: dict[Value, list[int | str]]
) -> None:
    """Name the axes that follow the image's height and width in `shapes`."""
    for letter, extra in (("H", (_EXTRA_PIXELS, 0)), ("W", (0, _EXTRA_PIXELS))):
        larger = with_larger_images(analysis, *extra)
        causes = [str(row.error) for row in larger.rows if row.error is not None and not row.blocked]
        _refuse_fixed_size(analysis, causes or _size_dependence(analysis, larger, graph, lower_graph))
        for value, axis in _changed_axes(analysis, larger):
            is_input = value in net_inputs(analysis.net)
            shapes[value][axis] = letter if is_input else f"{letter}_{valid_utf8(value.blob)}_{axis}"
    for other in at_other_image_sizes(analysis):
        _refuse_fixed_size(analysis, _size_dependence(analysis, other, graph, lower_graph))


def _size_dependence(analysis: Analysis, other: Analysis, graph: Graph, lower_graph: LowerGraph) -> list[str]:
    dependent = _shape_dependent_names(analysis, other, graph, lower_graph)
    return [f"layer {_listed_layers(dependent)} depends on it"] if dependent else []


def _shape_dependent_names(analysis: Analysis, other: Analysis, graph: Graph, lower_graph: LowerGraph) -> list[str]:
    """Return names of nodes and arrays, beginning with the layer's name, that change with the input shapes."""
    changed_layers = layers_with_other_blob_shapes(analysis, other)
    return [f"{layer.name}/" for layer in changed_layers] or _differing_names(graph, lower_graph(other))


def _refuse_fixed_size(analysis: Analysis, causes: Sequence[str]) -> None:
    if causes:
        raise UnsupportedError(f"{analysis.net.name}: its input size cannot be left open: {causes[0]}")


def _changed_axes(analysis: Analysis, other: Analysis) -> Iterable[tuple[Value, int]]:
    """Yield (value, axis) for each axis whose length differs between the two analyses."""
    for value, shape in analysis.shapes.items():
        for axis, (old, new) in enumerate(zip(shape, other.shapes[value], strict=True)):
            if old != new:
                yield value, axis


def _differing_names(graph: Graph, other: Graph) -> list[str]:
    """Return the names of nodes and arrays that differ. They begin with the name of their layer."""
    if len(graph.nodes) != len(other.nodes):
        other_names = {node.name for node in other.nodes}
        return [node.name for node in graph.nodes if node.name not in other_names] or ["a layer"]
    nodes = [a.name for a, b in zip(graph.nodes, other.nodes, strict=True) if a != b]
    return nodes + [name for name, array in graph.arrays.items() if not _has_same_array(other.arrays, name, array)]


def _has_same_array(arrays: Mapping[str, object], name: str, array: object) -> bool:
    import numpy as np

    other = arrays.get(name)
    if not isinstance(other, np.ndarray) or not isinstance(array, np.ndarray) or other.shape != array.shape:
        return False
    return has_same_numbers(array, other) or array.tobytes() == other.tobytes()


def _listed_layers(names: Sequence[str]) -> str:
    """Return the layers of nodes and arrays, the first few in quotes, and how many more there are."""
    layer_names = dict.fromkeys(name.rsplit("/", 1)[0] for name in names)
    return listed_names([repr(name) for name in layer_names])


def _values_sized_by_data(analysis: Analysis) -> list[Value]:
    """Return the values whose shape is known only when the net runs, and all values computed from them."""
    values: dict[Value, None] = {}
    for layer in analysis.net.layers:
        if _is_sized_by_data(layer) or any(value in values for value in layer.bottoms):
            values.update(dict.fromkeys(layer.tops))
    return list(values)


def _is_sized_by_data(layer: Layer) -> bool:
    return layer.type == "Filter" or layers.layer_type_of(layer).sized_by_data
