"""From layers to the bytes of a .caffemodel, .solverstate or .binaryproto, one layer at a time.

Fields go out in the order of their numbers, as protobuf writes them, so a file that Caffe wrote is copied byte for
byte. Numbers as in `reading`. Caffe itself reads no file of 2 GiB or more; this toolkit does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from prototxt_gen.caffemodel.reading import DOUBLE, FLOAT, HALF, MOST_AXES
from prototxt_gen.caffemodel.types import PHASE_FIELD, PHASES, Blob, Bytes, NewLayer, StoredLayer, shown
from prototxt_gen.caffemodel.wire import encode_head, encode_number, encode_varint
from prototxt_gen.common.errors import WeightsError
from prototxt_gen.common.files import replacing

Chunks = list[Bytes]
TAKEN = {1: "name", 2: "type", 3: "bottom", 4: "top", 7: "blobs", PHASE_FIELD: "phase"}


def save(path: str | os.PathLike[str], pieces: Iterable[Bytes], force: bool) -> None:
    """Write the pieces one behind the other to `path`."""
    with replacing(path, force) as part, part.open("r+b") as file:
        _write_all(file, pieces)


def _write_all(file: IO[bytes], pieces: Iterable[Bytes]) -> None:
    for piece in pieces:
        file.write(piece)


def net_pieces(layers: Iterable[NewLayer | StoredLayer], name: str) -> Iterator[Bytes]:
    """Yield a NetParameter of V2 layers, one layer in memory at a time; fields that forks gave blobs are left out."""
    yield from _text(1, name)
    for layer in layers:
        new = layer.renewed() if isinstance(layer, StoredLayer) else layer
        yield from wrapped(100, layer_chunks(new))


def layer_chunks(layer: NewLayer) -> Chunks:
    """Return `layer` as a LayerParameter."""
    named = [(1, layer.name), (2, layer.type)]
    fields: list[tuple[int, Chunks]] = [(number, _unless_empty(number, [_bytes(value)])) for number, value in named]
    fields += [(3, _text(3, bottom)) for bottom in layer.bottoms]
    fields += [(4, _text(4, top)) for top in layer.tops]
    fields += [(7, wrapped(7, blob_chunks(blob))) for blob in layer.blobs]
    if layer.phase:
        fields.append((PHASE_FIELD, [encode_number(PHASE_FIELD, PHASES.index(layer.phase))]))
    for number, payload in layer.params.items():
        if number in TAKEN:
            raise WeightsError(f"layer {shown(layer.name)}: field {number} is its {TAKEN[number]}, no parameters")
        fields.append((number, wrapped(number, [payload])))
    fields += [(number, [whole]) for number, whole in layer.encoded]
    return [chunk for _, chunks in sorted(fields, key=lambda each: each[0]) for chunk in chunks]


def state_pieces(iter: int, net: str, history: Iterable[NDArray[Any] | Blob], current_step: int) -> Iterator[Bytes]:
    """Yield a SolverState."""
    yield encode_number(1, iter)
    yield from _text(2, net)
    for blob in history:
        yield from wrapped(3, blob_chunks(blob))
    yield encode_number(4, current_step)


def blob_chunks(blob: NDArray[Any] | Blob, legacy: bool = False) -> Chunks:
    """Return a BlobProto: a Blob as it is stored, an array as float32. `legacy`: with num, channels, height and width.

    The old four must stay where they were: Caffe takes a legacy 1x1x1xN for N, but not a BlobShape of 1x1x1xN.
    """
    legacy = blob.legacy if isinstance(blob, Blob) else legacy
    dims = b"".join(encode_varint(dim) for dim in blob.shape)
    shape: Chunks = [] if legacy or not dims else wrapped(7, wrapped(1, [dims]))
    dtype, numbers = _numbers(blob)
    if dtype == DOUBLE:
        return [*_legacy(blob.shape, legacy), *shape, *_unless_empty(8, numbers)]
    if dtype == HALF:
        return [*_legacy(blob.shape, legacy), *shape, encode_number(10, 2), *_unless_empty(12, numbers)]
    return [*_legacy(blob.shape, legacy), *_unless_empty(5, numbers), *shape]


def _numbers(blob: NDArray[Any] | Blob) -> tuple[np.dtype[Any], Chunks]:
    """Return the numbers to write and their type, without a copy where they lie in one piece already."""
    if isinstance(blob, Blob) and blob.dtype in (FLOAT, DOUBLE, HALF):
        return blob.dtype, _stored(blob)
    with np.errstate(all="ignore"):
        array = np.ascontiguousarray(blob.array() if isinstance(blob, Blob) else blob, FLOAT)
    if array.ndim > MOST_AXES:
        raise WeightsError(f"a blob of {array.ndim} axes: Caffe has at most {MOST_AXES}")
    return FLOAT, [array.reshape(-1).view(np.uint8).data]


def _stored(blob: Blob) -> Chunks:
    """Return the bytes of the blob's numbers, straight from its file where they are packed there."""
    if all(span.stride == blob.dtype.itemsize for span in blob.spans) and blob.spans:
        return [blob.source[span.start : span.stop] for span in blob.spans]
    return [np.ascontiguousarray(blob.stored()).reshape(-1).view(np.uint8).data]


def wrapped(number: int, chunks: Sequence[Bytes]) -> Chunks:
    """Return the chunks as one length-delimited field."""
    return [encode_head(number, sum(map(len, chunks))), *chunks]


def _unless_empty(number: int, chunks: Chunks) -> Chunks:
    return wrapped(number, chunks) if any(map(len, chunks)) else []


def _legacy(shape: Sequence[int], legacy: bool) -> Chunks:
    return [encode_number(number, dim) for number, dim in enumerate(shape, 1)] if legacy else []


def _text(number: int, value: str) -> Chunks:
    return wrapped(number, [_bytes(value)])


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")
