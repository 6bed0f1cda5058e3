"""The size that ResizeBilinear and ResizeNearestNeighbor of synopsys-caffe give their top, in either order of axes."""

from __future__ import annotations

from typing import Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place


def first_axis(p: Any) -> int:
    """Return the axis of the height."""
    return 1 if p.data_format == "NHWC" else 2


def top_size(p: Any, bottom: Shape) -> tuple[int, int]:
    """Return the height and width of the top; where it is scaled, in float32 as there."""
    import numpy as np

    high, wide = bottom[first_axis(p) :][:2]
    scaled = [int(np.float32(n) * np.float32(s)) for n, s in ((high, p.scale_height), (wide, p.scale_width))]
    return (
        p.output_height if p.has("output_height") else scaled[0],
        p.output_width if p.has("output_width") else scaled[1],
    )


def resized(layer: Layer, p: Any, bottom: Shape, ways: tuple[str, str, str]) -> Shape:
    """Return the shape of the top. `ways` are the fields that say how to count, of which one may be true."""
    refuse_in_place(layer)
    if len(bottom) != 4:
        raise layer.error(f"it takes a bottom of 4 axes, not {show(bottom)}")
    if sum(getattr(p, way) for way in ways) > 1:
        raise layer.error(f"{ways[0]}, {ways[1]} and {ways[2]} exclude each other")
    size = top_size(p, bottom)
    if min(size) < 1:
        raise layer.error(f"its top would be {show(size)} pixels")
    return (bottom[0], *size, bottom[3]) if first_axis(p) == 1 else (*bottom[:2], *size)
