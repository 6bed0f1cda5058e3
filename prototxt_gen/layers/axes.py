"""What the layer types that move data around share: axes counted from the end, layers that cannot work in place."""

from __future__ import annotations

from prototxt_gen.ir import Layer, Shape, show


def canonical(layer: Layer, axis: int, bottom: Shape) -> int:
    """Return `axis` counted from 0. Source: include/caffe/blob.hpp Blob::CanonicalAxisIndex."""
    if not -len(bottom) <= axis < len(bottom):
        raise layer.error(f"axis {axis} is not an axis of its bottom {show(bottom)}")
    return axis % len(bottom)


def either_axis(layer: Layer, new: int | None, old: int | None, old_name: str, bottom: Shape) -> int:
    """Return the axis that `axis` or its deprecated alias names; both None gives 1.

    Source: src/caffe/layers/concat_layer.cpp, slice_layer.cpp.
    """
    if new is not None and old is not None:
        raise layer.error(f"axis and {old_name} are both given; it takes one of them")
    if old is not None and old >= len(bottom):
        raise layer.error(f"{old_name} {old} is not an axis of its bottom {show(bottom)}")
    given = new if old is None else old
    return canonical(layer, 1 if given is None else given, bottom)


def overwrites(layer: Layer) -> bool:
    """Whether the layer writes a top over one of its own bottoms."""
    return not {top.blob for top in layer.tops}.isdisjoint(bottom.blob for bottom in layer.bottoms)


def refuse_overwriting(layer: Layer) -> None:
    """Raise an error for the layers that Caffe runs in place and that then read what they have just written."""
    if overwrites(layer):
        raise layer.error("written over its bottom, Caffe computes nonsense; give its top another name")


def refuse_in_place(layer: Layer) -> None:
    """Raise the error of the layers that check this in Caffe."""
    if overwrites(layer):
        raise layer.error("it cannot write over its bottom; give its top another name")
