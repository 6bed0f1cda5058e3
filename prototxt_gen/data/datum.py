"""Caffe's Datum message (src/caffe/proto/caffe.proto), encoded and decoded by hand.

A data set holds millions of these seven-field messages. Going through a message class would build one object per
float and needs a generated schema; the wire format of seven fields is shorter than either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.data import images
from prototxt_gen.data.errors import DataError

Array = npt.NDArray[Any]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT_TAG = 6 << 3 | _FIXED32
_FLOAT_ENTRY = np.dtype([("tag", "u1"), ("value", "<f4")])


@dataclass(frozen=True)
class Datum:
    """One sample. Pixels are `data` (uint8, channel-major) or `float_data`; an encoded one holds a picture file."""

    channels: int = 0
    height: int = 0
    width: int = 0
    data: bytes = b""
    label: int = 0
    float_data: Array | None = None
    encoded: bool = False

    def array(self, color: bool | None = None) -> Array:
        """Return channels x height x width, uint8 (BGR where a picture was decoded) or float32.

        `color` is force_color (True), force_gray (False) or neither (None), and counts for encoded data only, as in
        DataTransformer::Transform (src/caffe/data_transformer.cpp).
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
    """Return the raw datum of one channels x height x width array: bytes for uint8, floats for any other type."""
    channels, height, width = image.shape
    if image.dtype == np.uint8:
        return Datum(channels, height, width, np.ascontiguousarray(image).tobytes(), label)
    return Datum(channels, height, width, b"", label, image.astype("<f4").ravel())


def encode(datum: Datum) -> bytes:
    """Return the message's bytes, fields in order of number; fields at their default are left out."""
    parts = [_varint_field(1, datum.channels), _varint_field(2, datum.height), _varint_field(3, datum.width)]
    if datum.data:
        parts += [_varint(4 << 3 | _BYTES), _varint(len(datum.data)), datum.data]
    parts.append(_varint(5 << 3 | _VARINT) + _varint(datum.label))
    if datum.float_data is not None:
        parts.append(_floats(datum.float_data))
    parts.append(_varint_field(7, int(datum.encoded)))
    return b"".join(parts)


def decode(message: bytes) -> Datum:
    """Read one message; fields a Datum does not have are passed over. Raises DataError where the bytes are damaged."""
    found: dict[int, Any] = {}
    floats: list[Array] = []
    for field, value in _fields(message):
        if field == 6:
            floats.append(value)
        else:
            found[field] = value
    channels, height, width, label = (_signed(found.get(field, 0)) for field in (1, 2, 3, 5))
    values = np.concatenate(floats) if floats else None
    return Datum(channels, height, width, bytes(found.get(4, b"")), label, values, bool(found.get(7, 0)))


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative int32 travels as the 64-bit two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> int:
    value &= (1 << 32) - 1
    return value - (1 << 32) if value >> 31 else value


def _varint_field(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value) if value else b""


def _floats(values: Array) -> bytes:
    entries = np.empty(values.size, _FLOAT_ENTRY)
    entries["tag"], entries["value"] = _FLOAT_TAG, values.ravel()
    return entries.tobytes()


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value); values are ints, bytes, or float32 arrays for field 6."""
    position = 0
    try:
        while position < len(message):
            tag, after = _read_varint(message, position)
            if tag == _FLOAT_TAG:
                value, position = _read_float_run(message, position)
                yield 6, value
                continue
            value, position = _read_value(message, tag & 7, after)
            yield tag >> 3, np.frombuffer(value, "<f4") if tag >> 3 == 6 else value
    except (IndexError, ValueError, TypeError) as error:
        raise DataError(f"a record is not a Datum message: damaged near byte {position} of {len(message)}") from error


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("varint too long")


def _read_value(message: bytes, wire: int, position: int) -> tuple[Any, int]:
    if wire == _VARINT:
        return _read_varint(message, position)
    if wire == _BYTES:
        size, position = _read_varint(message, position)
    elif wire in (_FIXED64, _FIXED32):
        size = 8 if wire == _FIXED64 else 4
    else:
        raise ValueError(f"wire type {wire}")
    if position + size > len(message):
        raise IndexError("past the end")
    return message[position : position + size], position + size


def _read_float_run(message: bytes, position: int) -> tuple[Array, int]:
    """Read all unpacked floats that follow one another in one NumPy view instead of one by one."""
    entries = np.frombuffer(message, _FLOAT_ENTRY, (len(message) - position) // _FLOAT_ENTRY.itemsize, position)
    others = np.flatnonzero(entries["tag"] != _FLOAT_TAG)
    count = int(others[0]) if others.size else entries.size
    if not count:
        raise IndexError("past the end")
    return entries["value"][:count].astype(np.float32), position + count * _FLOAT_ENTRY.itemsize
