"""Blobs that layers share by a name in `param`: who owns them, and which of a file's copies counts.

Source: src/caffe/net.cpp Net::AppendParam, CopyTrainedLayersFromBinaryProto, CopyTrainedLayersFromHDF5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from prototxt_gen.analysis import Row
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Shape, show

Place = tuple[str, str]
"""A layer's name and the role of one of its blobs."""


def groups(rows: Sequence[Row]) -> dict[str, dict[Place, Shape]]:
    """Return for each name the places that go by it, the owner first, with their shapes."""
    found: dict[str, dict[Place, Shape]] = {}
    for row in rows:
        for (role, blob), own in zip(row.blobs.items(), row.layer.params.param, strict=False):
            if own.name:
                found.setdefault(own.name, {})[row.layer.name, role] = blob.shape
    return found


def faults(rows: Sequence[Row]) -> Iterator[NetError]:
    """Yield an error where a layer lists more `param` than it has blobs, or shares a blob that does not fit."""
    owners: dict[str, tuple[Row, Shape]] = {}
    multipliers: dict[tuple[str, str], float] = {}
    for row in rows:
        params = row.layer.params.param
        if row.known and len(params) > len(row.blobs):
            yield row.layer.error(f"it has {len(params)} param, and {len(row.blobs)} blobs")
        for (role, blob), own in zip(row.blobs.items(), params, strict=False):
            if not own.name:
                continue
            owner, shape = owners.setdefault(own.name, (row, blob.shape))
            loose = own.share_mode == "PERMISSIVE" and math.prod(shape) == math.prod(blob.shape)
            if shape != blob.shape and not loose:
                yield row.layer.error(
                    f"it shares its {role} {show(blob.shape)} under the name {own.name!r} with layer "
                    f"{owner.layer.name!r}, whose is {show(shape)}"
                )
            for name in ("lr_mult", "decay_mult"):
                if own.has(name) and multipliers.setdefault((own.name, name), getattr(own, name)) != getattr(own, name):
                    yield row.layer.error(f"the {name} of param {own.name!r} is another than that of an earlier layer")


def resolved(rows: Sequence[Row], found: Mapping[Place, int]) -> dict[Place, Place]:
    """Return for each shared place the one in the file that it takes its numbers from.

    `found` tells which places the file has, by their order in it: the last one read is what all hold in the end.
    """
    taken: dict[Place, Place] = {}
    for places in groups(rows).values():
        there = [place for place in places if place in found]
        if there:
            last = max(reversed(there), key=lambda place: found[place])  # of one layer's own the last blob
            taken.update(dict.fromkeys(places, last))
    return taken
