"""Encoding and decoding of Datum compared with protobuf."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from prototxt_gen.data import datum
from prototxt_gen.data.data_errors import BrokenImageError, DataError
from prototxt_gen.data.datum import Datum


def _reference() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="datum_reference.proto", package="reference", syntax="proto2")
    message = file.message_type.add(name="Datum")
    for number, (name, kind) in enumerate(
        (("channels", 5), ("height", 5), ("width", 5), ("data", 12), ("label", 5), ("float_data", 2), ("encoded", 8)), 1
    ):
        label = field.LABEL_REPEATED if name == "float_data" else field.LABEL_OPTIONAL
        message.field.add(name=name, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("reference.Datum"))


REFERENCE = _reference()
FLOATS = np.array([1.5, -2.25, 3e-8, 0.0], np.float32)
EXAMPLES = {
    "bytes": Datum(3, 2, 1, bytes(range(6)), 9),
    "negative label": Datum(1, 1, 1, b"\xff", -1),
    "large": Datum(1, 300, 70000, b"x" * 300, 2**31 - 1),
    "floats": Datum(1, 2, 2, b"", 4, FLOATS),
    "encoded": Datum(data=b"\x89PNG", label=0, encoded=True),
    "empty": Datum(),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_protobuf_reads_what_is_written(name: str) -> None:
    example = EXAMPLES[name]
    read = REFERENCE.FromString(datum.encode(example))
    assert (read.channels, read.height, read.width) == (example.channels, example.height, example.width)
    assert (read.data, read.label, read.encoded) == (example.data, example.label, example.encoded)
    np.testing.assert_array_equal(read.float_data, [] if example.float_data is None else example.float_data)


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_protobuf_writes_is_read(name: str) -> None:
    example = EXAMPLES[name]
    floats = [] if example.float_data is None else example.float_data.tolist()
    written = REFERENCE(
        channels=example.channels, height=example.height, width=example.width, data=example.data,
        label=example.label, float_data=floats, encoded=example.encoded,
    ).SerializeToString()  # fmt: skip
    read = datum.decode(written)
    assert (read.data, read.label, read.encoded) == (example.data, example.label, example.encoded)
    assert (read.channels, read.height, read.width) == (example.channels, example.height, example.width)
    np.testing.assert_array_equal([] if read.float_data is None else read.float_data, floats)


def test_packed_floats_unknown_fields_and_split_runs_are_read() -> None:
    packed = b"\x32\x10" + FLOATS.tobytes()  # field 6, length-delimited
    unknown = b"\x78\x05" + b"\xfa\x01\x02hi"  # field 15 varint, field 31 bytes
    single = datum.encode(Datum(float_data=FLOATS[:1]))
    read = datum.decode(packed + unknown + single)
    np.testing.assert_array_equal(read.float_data, [*FLOATS, FLOATS[0]])


@pytest.mark.parametrize("damage", [b"\x08", b"\x22\x7fabc", b"\x35\x00\x00", b"\x0b", b"\x08" + b"\xff" * 11])
def test_damaged_messages_are_refused(damage: bytes) -> None:
    with pytest.raises(DataError, match="damaged"):
        datum.decode(damage)


def test_arrays_round_trip_and_wrong_sizes_are_refused() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(datum.decode(datum.encode(datum.from_array(image, 1))).array(), image)
    floats = image.astype(np.float64) / 7
    back = datum.decode(datum.encode(datum.from_array(floats, 1))).array()
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, floats.astype(np.float32))
    with pytest.raises(DataError, match="3x2x2 but holds 5 values"):
        Datum(3, 2, 2, b"12345").array()
    with pytest.raises(BrokenImageError, match="not a picture"):
        Datum(data=b"12345", encoded=True).array()
