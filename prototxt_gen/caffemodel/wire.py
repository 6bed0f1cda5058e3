"""Parser and encoder of protobuf's wire format, without a schema, without copies and without the limit of 2 GiB.

A message is a sequence of fields, each with its number, its wire type and, for some types, its length. So the parser
skips from field to field by their lengths, and never reads the memory pages with floats. The specification is the page
"Encoding" of protobuf. Unlike in protobuf, the number of fields in a file and the depth of groups are limited, as a
protection against malicious files.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from prototxt_gen.common.errors import WeightsError

VARINT, FIXED64, LEN, GROUP, GROUP_END, FIXED32 = range(6)
WIRE_NAMES = ("varint", "64-bit", "length-delimited", "group", "end of group", "32-bit")
WIDTHS = {FIXED64: 8, FIXED32: 4}

MAX_FIELDS = 1_000_000  # a net of 10,000 layers has about 300,000; a walk of this many takes about a second
MAX_GROUP_DEPTH = 100  # deep: protobuf's own default limit
RUN_COST = 8  # what finding a run of unpacked numbers costs, in fields

Field = tuple[int, int, int, int, int]  # number, wire type, value (varint) or start of payload, end, start of its tag


class WireError(ValueError):
    """Bytes that are not a protobuf message. The message gives the position in the file and the reason."""


class Wire:
    """Iterates over the fields of messages in `data`. Positions, also in errors, are byte offsets in `data`."""

    def __init__(self, data: memoryview, most_fields: int = MAX_FIELDS) -> None:
        self.data = data
        self._max_fields = self._remaining = most_fields

    def spend(self, fields: int) -> None:
        """Subtract `fields` from the number of fields allowed in one file. Raises WireError if it is exceeded."""
        self._remaining -= fields
        if self._remaining < 0:
            raise WireError(f"more than {self._max_fields:,} fields and layers, far more than any net has")

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """Yield the fields of the message at data[start:stop], in order.

        Numbers of 32 or 64 bits that repeat one field, as unpacked floats do, come as one field: it begins at the first
        number, ends behind the last, and its numbers lie width + 1 bytes apart.
        """
        data, at = self.data, start
        while at < stop:
            self.spend(1)
            tag, value = data[at], at + 1
            if not 8 <= tag < 0x80:  # nearly all tags and lengths are one byte; calls are slow
                tag, value = self._tag(at, stop)
            number, kind = tag >> 3, tag & 7
            if kind == LEN:
                if value < stop and (size := data[value]) < 0x80:
                    value += 1
                else:
                    size, value = self.varint(value, stop)
                end = value + size
                if end > stop:
                    raise WireError(f"byte {at}: field {number} claims {size:,} bytes, {stop - value:,} are left")
            elif kind == VARINT:
                value, end = self.varint(value, stop)
            elif kind in WIDTHS:
                end = self._fixed_end(at, value, stop, WIDTHS[kind])
            else:
                end = self._group_end(number, kind, at, value, stop)
            yield number, kind, value, end, at
            at = end

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """Return the unsigned 64-bit number at byte `at` and its end."""
        if at < stop and (first := self.data[at]) < 0x80:
            return first, at + 1
        value = 0
        for count in range(min(10, stop - at)):
            byte = self.data[at + count]
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + count + 1
        raise WireError(f"byte {at}: {'a number of more than 10 bytes' if stop - at >= 10 else 'cut off in a number'}")

    def varints(self, start: int, stop: int) -> Iterator[int]:
        """Yield the packed varints of data[start:stop]."""
        while start < stop:
            self.spend(1)
            value, start = self.varint(start, stop)
            yield value

    def _tag(self, at: int, stop: int) -> tuple[int, int]:
        """Return the tag at byte `at` (field number times 8 plus wire type) and its end."""
        tag, end = self.varint(at, stop)
        if not 8 <= tag <= 0xFFFF_FFFF:
            raise WireError(f"byte {at}: {tag >> 3} is no field number")
        return tag, end

    def _fixed_end(self, at: int, start: int, stop: int, width: int) -> int:
        """Return the end of the fixed-width number at `start`, or of the run of numbers that begins with it."""
        end = start + width
        if end > stop:
            raise WireError(f"byte {at}: cut off in a number of {width} bytes")
        if start - at > 1 or end == stop or self.data[end] != self.data[at]:
            return end
        return start + self._run(at, stop, width + 1) * (width + 1) - 1

    def _run(self, at: int, stop: int, stride: int) -> int:
        """Count the equal one-byte tags at `at`, each `stride` bytes from the last, whole numbers only."""
        self.spend(RUN_COST)
        most, tag = (stop - at) // stride, bytes(self.data[at : at + 1])
        count, block = 0, 64
        while count < most:
            first = at + count * stride
            tags = self.data[first : min(first + block * stride, at + most * stride) : stride].tobytes()
            others = len(tags.lstrip(tag))
            count += len(tags) - others
            if others:
                break
            block = min(block * 2, 1 << 20)
        return count

    def _group_end(self, number: int, kind: int, at: int, pos: int, stop: int) -> int:
        """Return the end of the group that field `number` opened before `pos`."""
        if kind != GROUP:
            raise WireError(f"byte {at}: field {number} has wire type {kind}, which begins no field")
        groups = [number]
        while groups:
            if pos >= stop:
                raise WireError(f"byte {at}: the group of field {number} is never closed")
            self.spend(1)
            at_inner, (tag, pos) = pos, self._tag(pos, stop)
            inner, kind = tag >> 3, tag & 7
            if kind == GROUP:
                groups.append(inner)
            elif kind == GROUP_END and groups.pop() != inner:
                raise WireError(f"byte {at_inner}: closes group {inner}, which is not the one that is open")
            elif kind != GROUP_END:
                pos = self._skip(at_inner, kind, pos, stop)
            if len(groups) > MAX_GROUP_DEPTH:
                raise WireError(f"byte {at_inner}: groups nested more than {MAX_GROUP_DEPTH} deep")
        return pos

    def _skip(self, at: int, kind: int, pos: int, stop: int) -> int:
        """Return the end of the payload at `pos` of a field that is not a group."""
        if kind == LEN:
            size, pos = self.varint(pos, stop)
            end = pos + size
        elif kind == VARINT:
            end = self.varint(pos, stop)[1]
        elif kind in WIDTHS:
            end = pos + WIDTHS[kind]
        else:
            raise WireError(f"byte {at}: wire type {kind} does not exist")
        if end > stop:
            raise WireError(f"byte {at}: a field runs past the end of its message")
        return end


def expect(field: Field, kind: int, name: str) -> None:
    """Raise WireError unless `field`, called `name` in the schema, has wire type `kind`."""
    if field[1] != kind:
        raise WireError(
            f"byte {field[4]}: field {field[0]} ({name}) is {WIRE_NAMES[field[1]]}, it should be {WIRE_NAMES[kind]}"
        )


def signed(value: int, bits: int = 64) -> int:
    """Return the varint `value` as protobuf's int64 or, with its upper half dropped, int32."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def encode_varint(value: int) -> bytes:
    """Return `value` (negative ones as int64) in 1 to 10 bytes."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_number(field: int, value: int) -> bytes:
    """Return the varint field `field` with its tag."""
    return encode_varint(field << 3 | VARINT) + encode_varint(value)


def encode_head(field: int, size: int) -> bytes:
    """Return tag and length of the length-delimited field `field`; `size` bytes of payload are to follow."""
    return encode_varint(field << 3 | LEN) + encode_varint(size)


def encode_message(field: int, payload: bytes | memoryview) -> bytes:
    """Return the length-delimited field `field` (string, bytes, packed numbers, sub-message) whole."""
    return encode_head(field, len(payload)) + bytes(payload)


def map_file(path: str | os.PathLike[str]) -> memoryview:
    """Return the bytes of `path`, mapped into memory read-only; they are read from the disk when accessed.

    Raises WeightsError if there is no such file, it cannot be read, is empty, or is no regular file (opening a pipe
    could wait for ever).
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"{os.fspath(path)}: is not a regular file")
        if status.st_size == 0:
            raise WeightsError(f"{os.fspath(path)}: is empty (0 bytes)")
        with Path(path).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError, OverflowError) as error:
        raise WeightsError(f"{os.fspath(path)}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def release_pages(data: memoryview) -> None:
    """Release the memory pages of a mapped file, if the system supports it; they are read again when accessed."""
    if isinstance(data.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.obj.madvise(mmap.MADV_DONTNEED)
