"""The same net analysed with other input shapes: a larger batch, and larger and smaller images.

The exporters compare what they write for these shapes. An axis that changes nothing can be left dynamic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prototxt_gen.analysis import Analysis, Row, analyse
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.net.lowering_checks import net_inputs

_SIZE_CHANGES = ((1, 2), (2, 1), (3, 4), (4, 3), (5, 7), (-1, -2), (16, 48), (48, 16), (64, 96))
"""Pixels added to height and width. Small changes alter remainders in shallow layers, large ones in deep layers."""


def input_shapes(analysis: Analysis) -> dict[str, Shape]:
    """Return the shape of every input and every used top of a data layer, by blob name."""
    return {value.blob: analysis.shapes[value] for value in net_inputs(analysis.net)}


def with_input_shapes(analysis: Analysis, shapes: Mapping[str, Shape]) -> Analysis:
    """Return the analysis of the same net with these shapes of some of its inputs, by blob name."""
    return analyse(analysis.net, {**input_shapes(analysis), **shapes})


def batch_size(analysis: Analysis) -> int:
    """Return the length of the first axis of the first input; 1 if there is no input."""
    first = next(iter(input_shapes(analysis).values()), ())
    return first[0] if first else 1


def with_larger_batch(analysis: Analysis) -> Analysis:
    """Return the analysis with one more image in all inputs whose first axis is the batch."""
    batch = batch_size(analysis)
    shapes = {blob: shape for blob, shape in input_shapes(analysis).items() if shape[:1] == (batch,)}
    return with_input_shapes(analysis, {blob: (batch + 1, *shape[1:]) for blob, shape in shapes.items()})


def with_larger_images(analysis: Analysis, extra_height: int, extra_width: int) -> Analysis:
    """Return the analysis with so many pixels added to the height and width of all N×C×H×W inputs."""
    shapes = {blob: shape for blob, shape in input_shapes(analysis).items() if len(shape) == 4}
    larger = {blob: (n, c, h + extra_height, w + extra_width) for blob, (n, c, h, w) in shapes.items()}
    return with_input_shapes(analysis, larger)


def at_other_image_sizes(analysis: Analysis) -> Iterator[Analysis]:
    """Yield the analysis for many image sizes, leaving out those that the net does not accept."""
    shortest_sides = [min(shape[2:]) for shape in input_shapes(analysis).values() if len(shape) == 4]
    for change in _SIZE_CHANGES:
        if shortest_sides and min(shortest_sides) + min(change) > 0:
            other = with_larger_images(analysis, *change)
            if other.complete:
                yield other


def layers_with_other_blob_shapes(analysis: Analysis, other: Analysis) -> list[Layer]:
    """Return the layers whose learned blobs have another shape in `other`, an analysis of the same net."""
    pairs = zip(analysis.rows, other.rows, strict=True)
    return [a.layer for a, b in pairs if _learned_shapes(a) != _learned_shapes(b)]


def _learned_shapes(row: Row) -> list[Shape]:
    return [spec.shape for spec in row.blobs.values()]
