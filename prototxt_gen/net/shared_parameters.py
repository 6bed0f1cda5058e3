"""Learned blobs that layers share through a `name` in `param`: the owner, and the stored copy that takes effect.

Source: src/caffe/net.cpp Net::AppendParam, CopyTrainedLayersFromBinaryProto, CopyTrainedLayersFromHDF5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from prototxt_gen.analysis import Row
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Shape, show

BlobKey = tuple[str, str]
"""A layer's name and the role of one of its blobs."""


def blobs_by_param_name(rows: Sequence[Row]) -> dict[str, dict[BlobKey, Shape]]:
    """Return, for each `name` in a `param`, the shapes of the blobs with this name, the owner's blob first."""
    groups: dict[str, dict[BlobKey, Shape]] = {}
    for row in rows:
        for (role, blob), param in zip(row.blobs.items(), row.layer.params.param, strict=False):
            if param.name:
                groups.setdefault(param.name, {})[row.layer.name, role] = blob.shape
    return groups


def sharing_errors(rows: Sequence[Row]) -> Iterator[NetError]:
    """Yield an error for each layer with more `param` than blobs, or with a shared blob unlike the owner's."""
    owners: dict[str, tuple[Row, Shape]] = {}
    multipliers: dict[tuple[str, str], float] = {}
    for row in rows:
        params = row.layer.params.param
        if row.known and len(params) > len(row.blobs):
            yield row.layer.error(f"it has {len(params)} param, but only {len(row.blobs)} learned blobs")
        for (role, blob), param in zip(row.blobs.items(), params, strict=False):
            if not param.name:
                continue
            owner, shape = owners.setdefault(param.name, (row, blob.shape))
            permitted = param.share_mode == "PERMISSIVE" and math.prod(shape) == math.prod(blob.shape)
            if shape != blob.shape and not permitted:
                yield row.layer.error(
                    f"its {role} is {show(blob.shape)}, but it shares it as param {param.name!r} with layer "
                    f"{owner.layer.name!r}, where it is {show(shape)}"
                )
            for name in ("lr_mult", "decay_mult"):
                value = getattr(param, name)
                if param.has(name) and multipliers.setdefault((param.name, name), value) != value:
                    yield row.layer.error(f"the {name} of param {param.name!r} differs from that of an earlier layer")


def effective_stored_blobs(rows: Sequence[Row], stored: Mapping[BlobKey, int]) -> dict[BlobKey, BlobKey]:
    """Return, for each shared blob, the blob in the weights file whose values it gets.

    `stored` gives the position in the file of each blob that the file has. Of several copies the last one takes effect,
    because Caffe copies them one after another into the same memory.
    """
    sources: dict[BlobKey, BlobKey] = {}
    for group in blobs_by_param_name(rows).values():
        copies = [key for key in group if key in stored]
        if copies:
            last = max(reversed(copies), key=lambda key: stored[key])  # the last blob, if a layer has several of them
            sources.update(dict.fromkeys(group, last))
    return sources
