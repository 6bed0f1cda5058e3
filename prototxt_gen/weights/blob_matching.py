"""Matching of the stored blobs of a layer with the learned blobs that the net's layer needs, by role and shape.

Source: src/caffe/net.cpp Net::CopyTrainedLayersFrom; here more shapes match, see `is_same_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import layers
from prototxt_gen.analysis import Row
from prototxt_gen.caffemodel.types import StoredLayer
from prototxt_gen.common.errors import WeightsError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import BlobSpec

Array = np.ndarray[Any, Any]


def matched_blobs(row: Row, stored: Sequence[StoredLayer], problems: list[str]) -> dict[str, Array]:
    """Return the arrays of a net's layer by role, and append a sentence for each mismatch to `problems`.

    `stored` are the layers of this name in the file. If there are several, all must match, and the last one is used.
    """
    if not any(layer.blobs for layer in stored):
        return {}
    count_before = len(problems)
    arrays = [_matched_blobs_of(row, layer, problems) for layer in stored]
    return arrays[-1] if len(problems) == count_before else {}


def _matched_blobs_of(row: Row, stored: StoredLayer, problems: list[str]) -> dict[str, Array]:
    """Return the arrays of one stored layer by role, or an empty dict if they do not match the net's layer."""
    specs, blobs = dict(row.blobs), stored.blobs
    if stored.version == "HDF5" and len(blobs) < len(specs):  # an HDF5 file lacks blobs that are shared
        specs = {role: spec for index, (role, spec) in enumerate(specs.items()) if index in stored.positions}
    try:
        if stored.positions in ((), tuple(range(len(blobs)))):
            specs = _specs_in_file_order(row.layer, specs, [blob.shape for blob in blobs])
    except WeightsError as error:
        problems.append(str(error))
        return {}
    if len(blobs) != len(specs):
        names = f" ({', '.join(specs)})" if specs else ""
        counts = f"{len(blobs)} blobs in the file, the net has {len(specs) or 'none'}{names}"
        problems.append(f"{layer_label(row.layer)}: {counts}")
        return {}
    pairs = list(zip(specs.items(), blobs, strict=True))
    mismatches = [(role, spec, blob) for (role, spec), blob in pairs if not is_same_layout(blob.shape, spec.shape)]
    for role, spec, blob in mismatches:
        shapes = f"{show(blob.shape)} in the file, {show(spec.shape)} in the net"
        problems.append(f"{layer_label(row.layer)}: its {role} is {shapes}")
    return {} if mismatches else {role: blob.array().reshape(spec.shape) for (role, spec), blob in pairs}


def _specs_in_file_order(layer: Layer, specs: dict[str, BlobSpec], shapes: Sequence[Shape]) -> dict[str, BlobSpec]:
    """Return the blob specs in the file's order; blobs that only the file has get the shapes they have there."""
    roles = layers.layer_type_of(layer).stored_roles(layer, shapes)
    if roles is None:
        return specs
    return {role: specs.get(role, BlobSpec(shape)) for role, shape in zip(roles, shapes, strict=True)}


def is_same_layout(one: Shape, other: Shape) -> bool:
    """Return whether two shapes are equal except for axes of size 1, so that the values have the same order.

    Blobs in old files always have four axes, and forks write the blobs of BN as C, 1×C or 1×C×1×1.
    """
    return [dim for dim in one if dim != 1] == [dim for dim in other if dim != 1]


def layer_label(layer: Layer) -> str:
    """Return the beginning of an error message about a layer: `layer 'name' (Type)`."""
    return f"layer {layer.name!r} ({layer.type})"
