"""Encoding and decoding of Caffe's Datum message (src/caffe/proto/caffe.proto) without protobuf.

A data set holds millions of these messages with seven fields. A message class would create one object per float and
would need a generated schema; this code is shorter than both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.caffemodel.wire import (
    FIXED32,
    LEN,
    VARINT,
    Wire,
    WireError,
    encode_message,
    encode_number,
    signed,
)
from prototxt_gen.data import images
from prototxt_gen.data.data_errors import DataError

Array = npt.NDArray[Any]

_CHANNELS, _HEIGHT, _WIDTH, _DATA, _LABEL, _FLOATS, _ENCODED = range(1, 8)
_FLOAT_ENTRY = np.dtype([("tag", "u1"), ("value", "<f4")])


@dataclass(frozen=True)
class Datum:
    """One sample: pixels in `data` (uint8, channel-major) or `float_data`; if `encoded`, `data` is an image file."""

    channels: int = 0
    height: int = 0
    width: int = 0
    data: bytes = b""
    label: int = 0
    float_data: Array | None = None
    encoded: bool = False

    def array(self, color: bool | None = None) -> Array:
        """Return channels x height x width, uint8 (BGR where an image was decoded) or float32.

        `color` is force_color (True), force_gray (False) or neither (None). It only affects encoded data, as in
        DataTransformer::Transform (src/caffe/data_transformer.cpp). Raises DataError if shape and data disagree.
        """
        if self.encoded:
            return images.to_chw(images.decode(self.data, color))
        flat = np.frombuffer(self.data, np.uint8) if self.data else self.float_data
        shape = (self.channels, self.height, self.width)
        if flat is None or flat.size != self.channels * self.height * self.width:
            held = 0 if flat is None else flat.size
            raise DataError(f"a datum says it is {'x'.join(map(str, shape))} but holds {held} values")
        return flat.reshape(shape)


def from_array(image: Array, label: int) -> Datum:
    """Return the datum of a channels x height x width array: bytes for uint8, floats for any other type."""
    channels, height, width = image.shape
    if image.dtype == np.uint8:
        return Datum(channels, height, width, np.ascontiguousarray(image).tobytes(), label)
    return Datum(channels, height, width, b"", label, image.astype("<f4").ravel())


def encode(datum: Datum) -> bytes:
    """Return the encoded message, with fields in order of their numbers; fields with default values are left out."""
    sizes = zip((_CHANNELS, _HEIGHT, _WIDTH), (datum.channels, datum.height, datum.width), strict=True)
    parts = [encode_number(field, size) for field, size in sizes if size]
    if datum.data:
        parts.append(encode_message(_DATA, datum.data))
    parts.append(encode_number(_LABEL, datum.label))
    if datum.float_data is not None:
        parts.append(_floats(datum.float_data))
    if datum.encoded:
        parts.append(encode_number(_ENCODED, 1))
    return b"".join(parts)


def decode(message: bytes) -> Datum:
    """Decode one message; unknown fields are skipped. Raises DataError if the bytes are damaged."""
    numbers: dict[int, int] = {}
    floats: list[Array] = []
    data = b""
    try:
        for field, kind, start, end, _ in Wire(memoryview(message)).fields(0, len(message)):
            if field == _FLOATS:
                floats.append(_read_floats(message, kind, start, end))
            elif field == _DATA and kind == LEN:
                data = message[start:end]
            elif kind == VARINT:
                numbers[field] = start
    except (WireError, ValueError) as error:
        raise DataError(f"a record is damaged, or is not a Datum message: {error}") from error
    channels, height, width, label = (
        signed(numbers.get(field, 0), 32) for field in (_CHANNELS, _HEIGHT, _WIDTH, _LABEL)
    )
    values = np.concatenate(floats) if floats else None
    return Datum(channels, height, width, data, label, values, bool(numbers.get(_ENCODED, 0)))


def _floats(values: Array) -> bytes:
    """Return the floats encoded as Caffe does: unpacked, with a tag before each."""
    entries = np.empty(values.size, _FLOAT_ENTRY)
    entries["tag"], entries["value"] = _FLOATS << 3 | FIXED32, values.ravel()
    return entries.tobytes()


def _read_floats(message: bytes, kind: int, start: int, end: int) -> Array:
    """Return packed floats, or consecutive unpacked ones, with a single NumPy view."""
    if kind == LEN:
        return np.frombuffer(message[start:end], "<f4")
    if kind != FIXED32:
        raise ValueError(f"float_data has wire type {kind}")
    entries = np.frombuffer(message, _FLOAT_ENTRY, (end - start + 1) // _FLOAT_ENTRY.itemsize, start - 1)
    return entries["value"].astype(np.float32)
