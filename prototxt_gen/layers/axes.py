"""Checks of axes and of in-place work that many layer types share."""

from __future__ import annotations

from prototxt_gen.ir import Layer, Shape, show


def canonical_axis(layer: Layer, axis: int, bottom: Shape) -> int:
    """Return `axis` counted from 0; a negative axis counts from the end.

    Raises NetError if the bottom has no such axis. Source: include/caffe/blob.hpp Blob::CanonicalAxisIndex.
    """
    if not -len(bottom) <= axis < len(bottom):
        raise layer.error(f"axis {axis} is not an axis of its bottom {show(bottom)}")
    return axis % len(bottom)


def axis_or_alias(layer: Layer, axis: int | None, alias: int | None, alias_name: str, bottom: Shape) -> int:
    """Return the canonical axis given as `axis` or under its deprecated name; 1 if both are None.

    Raises NetError if both are given. Source: src/caffe/layers/concat_layer.cpp, slice_layer.cpp.
    """
    if axis is not None and alias is not None:
        raise layer.error(f"axis and {alias_name} are both given; only one is allowed")
    if alias is not None and alias >= len(bottom):
        raise layer.error(f"{alias_name} {alias} is not an axis of its bottom {show(bottom)}")
    given = axis if alias is None else alias
    return canonical_axis(layer, 1 if given is None else given, bottom)


def is_in_place(layer: Layer) -> bool:
    """Whether a top of the layer is written over one of its bottoms."""
    return not {top.blob for top in layer.tops}.isdisjoint(bottom.blob for bottom in layer.bottoms)


def refuse_wrong_in_place(layer: Layer) -> None:
    """Raise NetError if the layer is in place. For types that Caffe lets run in place, with wrong results.

    They read their bottom again after they have overwritten it.
    """
    if is_in_place(layer):
        raise layer.error("in place Caffe computes wrong results; give its top another name")


def refuse_in_place(layer: Layer) -> None:
    """Raise NetError if the layer is in place. For types that check this in Caffe too."""
    if is_in_place(layer):
        raise layer.error("it cannot work in place; give its top another name")
