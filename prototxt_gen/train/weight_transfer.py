"""Taking over weights by layer name and shape. Source: src/caffe/net.cpp Net::CopyTrainedLayersFrom."""

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
from prototxt_gen.weights import statistic_of
from prototxt_gen.weights.blob_matching import same_layout

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, Sequence[Shape]]
"""The shapes of a net's blobs, by layer."""


Stored = dict[str, dict[int, "Blob | Array"]]
"""A file's blobs by layer and place."""


def matched(path: Path, net: Shapes, layers: Iterable[Layer] = ()) -> tuple[list[NewLayer], list[str]]:
    """Return the layers of a file that the net takes, their blobs in the net's shapes, and a line for each layer.

    A layer of the same name and other shapes is a WeightsError, as in Caffe: it is renamed where it shall start anew.
    So is a file of another net altogether, which Caffe would pass over. `layers` are the net's, which tell what HDF5
    leaves out: a shared blob is there with its owner alone.
    """
    model = caffemodel.read(path)
    types = {layer.name: layer.type for layer in model.layers}
    stored: Stored = {
        layer.name: dict(zip(layer.positions, layer.blobs, strict=True)) for layer in model.layers if layer.blobs
    }
    if net and not stored.keys() & net.keys():
        raise WeightsError(f"{path}: none of its {len(stored)} layers with weights is in this net, by name")
    if model.version == "HDF5":
        _add_shared(stored, net, layers)
    faults = [fault for name, shapes in net.items() if name in stored for fault in _faults(name, stored[name], shapes)]
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise WeightsError(f"{path} does not fit; rename the layers that shall be trained anew:{listed}")
    taken = [
        NewLayer(name, types.get(name, ""), _fitted(stored[name], shapes))
        for name, shapes in net.items()
        if name in stored
    ]
    return taken, [*_lines(net, stored)]


def _add_shared(stored: Stored, net: Shapes, layers: Iterable[Layer]) -> None:
    """Give each blob that the file lacks the numbers of the one it shares. Source: Net::CopyTrainedLayersFromHDF5."""
    owners: dict[str, Blob | Array] = {}
    for layer in layers:
        for place, (own, shape) in enumerate(zip(layer.params.param, net.get(layer.name, ()), strict=False)):
            blob = stored.get(layer.name, {}).get(place)
            if blob is not None:
                owners.setdefault(own.name, blob)
            elif own.name in owners and own.name:
                array = _array(owners[own.name])
                fits = array.size == math.prod(shape)
                stored.setdefault(layer.name, {})[place] = array.reshape(shape) if fits else array


def in_inverse_std(taken: Sequence[NewLayer], path: Path, net: Net, told: str | None = None) -> list[NewLayer]:
    """Return the layers with the fourth blob of merged BN as 1/sqrt(var+eps), which our Caffe has there.

    WeightsError where the file has such layers and neither it nor `told` says which of the two it holds.
    """
    merged = {layer.name: layer.get(BNParameter) for layer in net.layers if layer.type == "BN"}
    merged = {layer.name: merged[layer.name] for layer in taken if layer.name in merged and len(layer.blobs) == 4}
    if not merged or statistic_of(caffemodel.read(path), None, told) == INVERSE_STD:
        return list(taken)
    return [_converted(layer, merged[layer.name].eps) if layer.name in merged else layer for layer in taken]


def _converted(layer: NewLayer, eps: float) -> NewLayer:
    *others, variance = (np.asarray(blob) for blob in layer.blobs)
    return replace(layer, blobs=[*others, (1 / np.sqrt(variance.astype("float64") + eps)).astype("float32")])


def _faults(name: str, blobs: Mapping[int, Blob | Array], shapes: Sequence[Shape]) -> list[str]:
    if blobs.keys() != set(range(len(shapes))):
        return [f"layer {name!r}: {len(blobs)} blobs in the file, {len(shapes)} in the net"]
    return [
        f"layer {name!r}: blob {place} is {show(blobs[place].shape)} in the file, {show(shape)} in the net"
        for place, shape in enumerate(shapes)
        if not same_layout(blobs[place].shape, shape)
    ]


def _fitted(blobs: Mapping[int, Blob | Array], shapes: Sequence[Shape]) -> list[Array]:
    return [_array(blobs[place]).reshape(shape) for place, shape in enumerate(shapes)]


def _array(blob: Blob | Array) -> Array:
    return blob if isinstance(blob, np.ndarray) else blob.array()


def _lines(net: Shapes, stored: Stored) -> list[str]:
    lines = []
    for name, shapes in net.items():
        blobs = ", ".join(map(show, shapes))
        found = f"matched, {blobs}" if name in stored else f"not in the file: keeps its filler, {blobs}"
        lines.append(f"layer {name!r}: {found}")
    lines += [f"layer {name!r}: in the file alone: not used" for name in stored if name not in net]
    return lines
