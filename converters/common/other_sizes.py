"""The same net for other inputs: more images, larger and smaller ones. What stays the same for all is left open."""

from __future__ import annotations

from collections.abc import Iterator

from converters.common.net_with_weights import bounds, reanalysed
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.ir import Layer, Shape

_STEPS = ((1, 2), (2, 1), (3, 4), (4, 3), (5, 7), (-1, -2), (16, 48), (48, 16), (64, 96))
"""How much higher and wider: small steps leave other remainders in shallow layers, large ones in deep layers."""


def batch_of(analysis: Analysis) -> int:
    """Return the first axis of the first input; 1 where there is none."""
    first = next(iter(bounds(analysis).values()), ())
    return first[0] if first else 1


def more_images(analysis: Analysis) -> Analysis:
    """Return the analysis with one image more in the inputs that have the batch as their first axis."""
    batch = batch_of(analysis)
    shapes = {blob: shape for blob, shape in bounds(analysis).items() if shape[:1] == (batch,)}
    return reanalysed(analysis, {blob: (batch + 1, *shape[1:]) for blob, shape in shapes.items()})


def resized(analysis: Analysis, higher: int, wider: int) -> Analysis:
    """Return the analysis with images of another size."""
    shapes = {blob: shape for blob, shape in bounds(analysis).items() if len(shape) == 4}
    return reanalysed(analysis, {blob: (*s[:2], s[2] + higher, s[3] + wider) for blob, s in shapes.items()})


def other_sizes(analysis: Analysis) -> Iterator[Analysis]:
    """Yield the analysis for images of many sizes, those that the net takes."""
    smallest = [min(shape[2:]) for shape in bounds(analysis).values() if len(shape) == 4]
    for step in _STEPS:
        if smallest and min(smallest) + min(step) > 0:
            other = resized(analysis, *step)
            if other.complete:
                yield other


def relearned(one: Analysis, other: Analysis) -> list[Layer]:
    """Return the layers whose weights would have another shape."""
    pairs = zip(one.rows, other.rows, strict=True)
    return [a.layer for a, b in pairs if _learned_shapes(a) != _learned_shapes(b)]


def _learned_shapes(row: Row) -> list[Shape]:
    return [spec.shape for spec in row.blobs.values()]
