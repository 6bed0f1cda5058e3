"""Top size of ResizeBilinear and ResizeNearestNeighbor of synopsys-caffe, for both data formats."""

from __future__ import annotations

from typing import Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place


def height_axis(p: Any) -> int:
    """Return the axis of the height: 1 in NHWC, else 2."""
    return 1 if p.data_format == "NHWC" else 2


def top_size(p: Any, bottom: Shape) -> tuple[int, int]:
    """Return the height and width of the top. Scaled sizes are computed in float32, as in the fork."""
    import numpy as np

    high, wide = bottom[height_axis(p) :][:2]
    scaled = [int(np.float32(n) * np.float32(s)) for n, s in ((high, p.scale_height), (wide, p.scale_width))]
    return (
        p.output_height if p.has("output_height") else scaled[0],
        p.output_width if p.has("output_width") else scaled[1],
    )


def resized_shape(layer: Layer, p: Any, bottom: Shape, modes: tuple[str, str, str]) -> Shape:
    """Return the shape of the top.

    Raises NetError if it is empty, or if several of the boolean fields `modes` are true.
    """
    refuse_in_place(layer)
    if len(bottom) != 4:
        raise layer.error(f"it needs a bottom with 4 axes, not {show(bottom)}")
    if sum(getattr(p, mode) for mode in modes) > 1:
        raise layer.error(f"only one of {modes[0]}, {modes[1]} and {modes[2]} may be true")
    size = top_size(p, bottom)
    if min(size) < 1:
        raise layer.error(f"its top would have size {show(size)}")
    return (bottom[0], *size, bottom[3]) if height_axis(p) == 1 else (*bottom[:2], *size)
