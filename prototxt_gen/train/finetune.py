"""Taking over weights by layer name and shape. Source: src/caffe/net.cpp Net::CopyTrainedLayersFrom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel.types import NewLayer, StoredLayer
from prototxt_gen.errors import WeightsError
from prototxt_gen.ir import Net, Shape, show
from prototxt_gen.layers.bn import INVERSE_STD, BNParameter
from prototxt_gen.weights import same_layout, statistic_of

Shapes = Mapping[str, Sequence[Shape]]
"""The shapes of a net's blobs, by layer."""


def matched(path: Path, net: Shapes) -> tuple[list[NewLayer], list[str]]:
    """Return the layers of a file that the net takes, their blobs in the net's shapes, and a line for each layer.

    A layer of the same name and other shapes is a WeightsError, as in Caffe: it is renamed where it shall start anew.
    So is a file of another net altogether, which Caffe would pass over.
    """
    stored = {layer.name: layer for layer in caffemodel.read(path).layers if layer.blobs}
    if net and not stored.keys() & net.keys():
        raise WeightsError(f"{path}: none of its {len(stored)} layers with weights is in this net, by name")
    faults = [fault for name, shapes in net.items() if name in stored for fault in _faults(stored[name], shapes)]
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise WeightsError(f"{path} does not fit; rename the layers that shall be trained anew:{listed}")
    taken = [_fitted(stored[name], shapes) for name, shapes in net.items() if name in stored]
    return taken, [*_lines(net, stored)]


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


def _faults(layer: StoredLayer, shapes: Sequence[Shape]) -> list[str]:
    if len(layer.blobs) != len(shapes):
        return [f"layer {layer.name!r}: {len(layer.blobs)} blobs in the file, {len(shapes)} in the net"]
    pairs = enumerate(zip(layer.blobs, shapes, strict=True))
    return [
        f"layer {layer.name!r}: blob {index} is {show(blob.shape)} in the file, {show(shape)} in the net"
        for index, (blob, shape) in pairs
        if not same_layout(blob.shape, shape)
    ]


def _fitted(layer: StoredLayer, shapes: Sequence[Shape]) -> NewLayer:
    arrays = [blob.array().reshape(shape) for blob, shape in zip(layer.blobs, shapes, strict=True)]
    return NewLayer(layer.name, layer.type, arrays)


def _lines(net: Shapes, stored: Mapping[str, StoredLayer]) -> list[str]:
    lines = []
    for name, shapes in net.items():
        blobs = ", ".join(map(show, shapes))
        found = f"matched, {blobs}" if name in stored else f"not in the file: keeps its filler, {blobs}"
        lines.append(f"layer {name!r}: {found}")
    lines += [f"layer {name!r}: in the file alone: not used" for name in stored if name not in net]
    return lines
