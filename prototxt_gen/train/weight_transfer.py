"""Initial weights for training, matched by layer name and shape.

Source: src/caffe/net.cpp Net::CopyTrainedLayersFrom.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel.types import Blob, NewLayer
from prototxt_gen.common.errors import WeightsError
from prototxt_gen.ir import Layer, Net, Shape, show
from prototxt_gen.layers.normalization._batch_norm_shared import INVERSE_STD
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.weights import bn_statistic
from prototxt_gen.weights.blob_matching import is_same_layout

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, Sequence[Shape]]
"""The shapes of a net's blobs by layer name."""
StoredBlobs = dict[str, dict[int, "Blob | Array"]]
"""The blobs of a file by layer name and index."""


def match_layers(path: Path, net: Shapes, layers: Iterable[Layer] = ()) -> tuple[list[NewLayer], list[str]]:
    """Return the layers of a weights file that match the net by name, and one line of text for each layer.

    The blobs are returned in the net's shapes. `net` has the shapes of the net's blobs; `layers` are the net's layers,
    needed for HDF5 files, which store a shared blob only once. Raises WeightsError if a layer of the same name has
    blobs of other shapes, as in Caffe, and if no layer matches at all, which Caffe would ignore.
    """
    model = caffemodel.read(path)
    types = {layer.name: layer.type for layer in model.layers}
    stored: StoredBlobs = {
        layer.name: dict(zip(layer.positions, layer.blobs, strict=True)) for layer in model.layers if layer.blobs
    }
    if net and not stored.keys() & net.keys():
        raise WeightsError(f"{path}: none of its {len(stored)} layers with weights is in this net, by name")
    if model.version == "HDF5":
        _add_shared(stored, net, layers)
    problems = [
        problem
        for name, shapes in net.items()
        if name in stored
        for problem in _shape_problems(name, stored[name], shapes)
    ]
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise WeightsError(f"{path} does not fit; rename the layers that are to be trained from scratch:{listed}")
    matched = [
        NewLayer(name, types.get(name, ""), _reshaped(stored[name], shapes))
        for name, shapes in net.items()
        if name in stored
    ]
    return matched, [*_report_lines(net, stored)]


def _add_shared(stored: StoredBlobs, net: Shapes, layers: Iterable[Layer]) -> None:
    """Add the shared blobs that the file stores only in another layer. Source: Net::CopyTrainedLayersFromHDF5."""
    owners: dict[str, Blob | Array] = {}
    for layer in layers:
        for index, (param, shape) in enumerate(zip(layer.params.param, net.get(layer.name, ()), strict=False)):
            blob = stored.get(layer.name, {}).get(index)
            if blob is not None:
                owners.setdefault(param.name, blob)
            elif param.name in owners and param.name:
                array = _array(owners[param.name])
                fits = array.size == math.prod(shape)
                stored.setdefault(layer.name, {})[index] = array.reshape(shape) if fits else array


def with_inverse_std(matched: Sequence[NewLayer], path: Path, net: Net, statistic: str | None = None) -> list[NewLayer]:
    """Return the layers with the fourth blob of merged BN as 1/sqrt(variance + eps), as our Caffe stores it.

    `statistic` says what the file's fourth blob holds, "inverse_std" or "variance". Raises WeightsError if the file has
    such layers and neither the file nor `statistic` says so.
    """
    all_bn = {layer.name: layer.get(BNParameter) for layer in net.layers if layer.type == "BN"}
    merged_bn = {layer.name: all_bn[layer.name] for layer in matched if layer.name in all_bn and len(layer.blobs) == 4}
    if not merged_bn or bn_statistic(caffemodel.read(path), None, statistic) == INVERSE_STD:
        return list(matched)
    return [
        _variance_to_inverse_std(layer, merged_bn[layer.name].eps) if layer.name in merged_bn else layer
        for layer in matched
    ]


def _variance_to_inverse_std(layer: NewLayer, eps: float) -> NewLayer:
    *others, variance = (np.asarray(blob) for blob in layer.blobs)
    return replace(layer, blobs=[*others, (1 / np.sqrt(variance.astype("float64") + eps)).astype("float32")])


def _shape_problems(name: str, blobs: Mapping[int, Blob | Array], shapes: Sequence[Shape]) -> list[str]:
    if blobs.keys() != set(range(len(shapes))):
        return [f"layer {name!r}: {len(blobs)} blobs in the file, {len(shapes)} in the net"]
    return [
        f"layer {name!r}: blob {index} is {show(blobs[index].shape)} in the file, {show(shape)} in the net"
        for index, shape in enumerate(shapes)
        if not is_same_layout(blobs[index].shape, shape)
    ]


def _reshaped(blobs: Mapping[int, Blob | Array], shapes: Sequence[Shape]) -> list[Array]:
    return [_array(blobs[index]).reshape(shape) for index, shape in enumerate(shapes)]


def _array(blob: Blob | Array) -> Array:
    return blob if isinstance(blob, np.ndarray) else blob.array()


def _report_lines(net: Shapes, stored: StoredBlobs) -> list[str]:
    lines = []
    for name, shapes in net.items():
        blobs = ", ".join(map(show, shapes))
        status = f"matched, {blobs}" if name in stored else f"not in the file: keeps its filler, {blobs}"
        lines.append(f"layer {name!r}: {status}")
    lines += [f"layer {name!r}: only in the file: not used" for name in stored if name not in net]
    return lines
