"""Whether a layer's blobs in a file are those that the net's layer asks for, and then its arrays by role.

Source: src/caffe/net.cpp Net::CopyTrainedLayersFrom; more shapes are taken here than there, see `same_layout`.
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


def fitted(row: Row, found: Sequence[StoredLayer], faults: list[str]) -> dict[str, Array]:
    """Return a layer's arrays; what is wrong goes to `faults`. Of layers of one name all must fit, the last counts."""
    if not any(one.blobs for one in found):
        return {}
    known = len(faults)
    made = [_fitted(row, one, faults) for one in found]
    return made[-1] if len(faults) == known else {}


def _fitted(row: Row, stored: StoredLayer, faults: list[str]) -> dict[str, Array]:
    """Return the arrays of one layer in the file, checked against those of the net's."""
    specs, blobs = dict(row.blobs), stored.blobs
    if stored.version == "HDF5" and len(blobs) < len(specs):  # there, shared ones are left out
        specs = {role: spec for place, (role, spec) in enumerate(specs.items()) if place in stored.positions}
    try:
        if stored.positions in ((), tuple(range(len(blobs)))):
            specs = _as_stored(row.layer, specs, [blob.shape for blob in blobs])
    except WeightsError as error:
        faults.append(str(error))
        return {}
    if len(blobs) != len(specs):
        names = f" ({', '.join(specs)})" if specs else ""
        faults.append(f"{who(row.layer)}: {len(blobs)} blobs in the file, the net has {len(specs) or 'none'}{names}")
        return {}
    pairs = list(zip(specs.items(), blobs, strict=True))
    odd = [(role, spec, blob) for (role, spec), blob in pairs if not same_layout(blob.shape, spec.shape)]
    for role, spec, blob in odd:
        faults.append(f"{who(row.layer)}: its {role} is {show(blob.shape)} in the file, {show(spec.shape)} in the net")
    return {} if odd else {role: blob.array().reshape(spec.shape) for (role, spec), blob in pairs}


def _as_stored(layer: Layer, specs: dict[str, BlobSpec], shapes: Sequence[Shape]) -> dict[str, BlobSpec]:
    """Return the specs in the file's order; roles that only the file knows of take the shapes it has."""
    roles = layers.layer_type_of(layer).stored_roles(layer, shapes)
    if roles is None:
        return specs
    return {role: specs.get(role, BlobSpec(shape)) for role, shape in zip(roles, shapes, strict=True)}


def same_layout(one: Shape, other: Shape) -> bool:
    """Whether two shapes differ by axes of size 1 alone, so that the same numbers mean the same.

    Old files have four axes always, and forks write BN's blobs as C, 1×C or 1×C×1×1.
    """
    return [dim for dim in one if dim != 1] == [dim for dim in other if dim != 1]


def who(layer: Layer) -> str:
    """Return how errors call a layer."""
    return f"layer {layer.name!r} ({layer.type})"
