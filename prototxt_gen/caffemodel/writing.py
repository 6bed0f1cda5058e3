"""Writer of .caffemodel, .solverstate and .binaryproto files, one layer at a time.

Fields are written in the order of their numbers, as in protobuf, so a file written by Caffe is copied byte for byte.
Field numbers are those of `reading`. Caffe itself cannot read files of 2 GiB or more; this toolkit can.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from prototxt_gen.caffemodel.reading import DOUBLE, FLOAT, HALF, MAX_AXES
from prototxt_gen.caffemodel.types import PHASE_FIELD, PHASES, Blob, Bytes, NewLayer, StoredLayer, quoted_name
from prototxt_gen.caffemodel.wire import encode_head, encode_number, encode_varint
from prototxt_gen.common.errors import WeightsError
from prototxt_gen.common.files import replacing

Chunks = list[Bytes]
RESERVED_FIELDS = {1: "name", 2: "type", 3: "bottom", 4: "top", 7: "blobs", PHASE_FIELD: "phase"}


def save(path: str | os.PathLike[str], pieces: Iterable[Bytes], force: bool) -> None:
    """Write all pieces, one after another, to `path`."""
    with replacing(path, force) as part, part.open("r+b") as file:
        _write_all(file, pieces)


def _write_all(file: IO[bytes], pieces: Iterable[Bytes]) -> None:
    for piece in pieces:
        file.write(piece)


def net_pieces(layers: Iterable[NewLayer | StoredLayer], name: str) -> Iterator[Bytes]:
    """Yield the bytes of a NetParameter with V2 layers, layer by layer, without blob fields that only forks have."""
    yield from _text(1, name)
    for layer in layers:
        new = layer.to_new_layer() if isinstance(layer, StoredLayer) else layer
        yield from length_delimited(100, layer_chunks(new))


def layer_chunks(layer: NewLayer) -> Chunks:
    """Return the bytes of a LayerParameter."""
    named = [(1, layer.name), (2, layer.type)]
    fields: list[tuple[int, Chunks]] = [(number, _unless_empty(number, [_bytes(value)])) for number, value in named]
    fields += [(3, _text(3, bottom)) for bottom in layer.bottoms]
    fields += [(4, _text(4, top)) for top in layer.tops]
    fields += [(7, length_delimited(7, blob_chunks(blob))) for blob in layer.blobs]
    if layer.phase:
        fields.append((PHASE_FIELD, [encode_number(PHASE_FIELD, PHASES.index(layer.phase))]))
    for number, payload in layer.params.items():
        if number in RESERVED_FIELDS:
            raise WeightsError(
                f"layer {quoted_name(layer.name)}: field {number} is its {RESERVED_FIELDS[number]}, not parameters"
            )
        fields.append((number, length_delimited(number, [payload])))
    fields += [(number, [whole]) for number, whole in layer.encoded]
    return [chunk for _, chunks in sorted(fields, key=lambda each: each[0]) for chunk in chunks]


def state_pieces(iter: int, net: str, history: Iterable[NDArray[Any] | Blob], current_step: int) -> Iterator[Bytes]:
    """Yield the bytes of a SolverState."""
    yield encode_number(1, iter)
    yield from _text(2, net)
    for blob in history:
        yield from length_delimited(3, blob_chunks(blob))
    yield encode_number(4, current_step)


def blob_chunks(blob: NDArray[Any] | Blob, legacy: bool = False) -> Chunks:
    """Return the bytes of a BlobProto: a Blob in its stored type, an array as float32.

    `legacy` writes the shape of an array as num, channels, height and width. A Blob keeps its form of shape, because
    Caffe accepts a legacy 1x1x1xN for N, but not a BlobShape of 1x1x1xN.
    """
    legacy = blob.legacy if isinstance(blob, Blob) else legacy
    dims = b"".join(encode_varint(dim) for dim in blob.shape)
    shape: Chunks = [] if legacy or not dims else length_delimited(7, length_delimited(1, [dims]))
    dtype, numbers = _values_to_write(blob)
    if dtype == DOUBLE:
        return [*_legacy_shape(blob.shape, legacy), *shape, *_unless_empty(8, numbers)]
    if dtype == HALF:
        return [*_legacy_shape(blob.shape, legacy), *shape, encode_number(10, 2), *_unless_empty(12, numbers)]
    return [*_legacy_shape(blob.shape, legacy), *_unless_empty(5, numbers), *shape]


def _values_to_write(blob: NDArray[Any] | Blob) -> tuple[np.dtype[Any], Chunks]:
    """Return the type and bytes of the values to write, without a copy if they are contiguous."""
    if isinstance(blob, Blob) and blob.dtype in (FLOAT, DOUBLE, HALF):
        return blob.dtype, _stored_bytes(blob)
    with np.errstate(all="ignore"):
        array = np.ascontiguousarray(blob.array() if isinstance(blob, Blob) else blob, FLOAT)
    if array.ndim > MAX_AXES:
        raise WeightsError(f"a blob of {array.ndim} axes: Caffe has at most {MAX_AXES}")
    return FLOAT, [array.reshape(-1).view(np.uint8).data]


def _stored_bytes(blob: Blob) -> Chunks:
    """Return the bytes of the blob's values, directly from its file if they are packed there."""
    if all(span.stride == blob.dtype.itemsize for span in blob.spans) and blob.spans:
        return [blob.source[span.start : span.stop] for span in blob.spans]
    return [np.ascontiguousarray(blob.stored()).reshape(-1).view(np.uint8).data]


def length_delimited(number: int, chunks: Sequence[Bytes]) -> Chunks:
    """Return the chunks as a length-delimited field: tag, length and payload."""
    return [encode_head(number, sum(map(len, chunks))), *chunks]


def _unless_empty(number: int, chunks: Chunks) -> Chunks:
    return length_delimited(number, chunks) if any(map(len, chunks)) else []


def _legacy_shape(shape: Sequence[int], legacy: bool) -> Chunks:
    return [encode_number(number, dim) for number, dim in enumerate(shape, 1)] if legacy else []


def _text(number: int, value: str) -> Chunks:
    return length_delimited(number, [_bytes(value)])


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")
