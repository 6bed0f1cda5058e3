"""Damaged, malicious and wrong files: each gives a clear error, in little time and memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel.reading import parse_blob, parse_net, parse_state
from prototxt_gen.caffemodel.wire import MAX_FIELDS, encode_head, encode_message, encode_varint
from prototxt_gen.common.errors import WeightsError
from tests.support.caffemodel_oracle import blob, loose, message

pytestmark = pytest.mark.fuzz

NET = message(
    "NetParameter",
    name="net",
    layer=[
        {"name": "data", "type": "Input", "top": ["data"]},
        {"name": "conv", "type": "Convolution", "bottom": ["data"], "top": ["conv"], "phase": 1, "loss_weight": [1, 2]},
        {"name": "bn", "type": "BN", "blobs": [blob([1, 2, 1, 1], [1, 2]), blob([2], [3, 4])], "bn_param": {"eps": 1}},
        {"name": "ip", "type": "IP", "blobs": [{"num": 1, "channels": 1, "height": 1, "width": 1, "data": [1]}]},
        {"name": "half", "blobs": [{"shape": {"dim": [2]}, "raw_data_type": 2, "raw_data": b"\0<\0<"}]},
        {"name": "double", "blobs": [{"shape": {"dim": [1]}, "double_data": [1]}]},
    ],
).SerializeToString()
OLD = message(
    "NetParameter",
    layers=[
        {"name": "c", "type": 4, "bottom": ["a"], "top": ["b"], "blobs": [blob([2], [1, 2])]},
        {"layer": {"name": "c", "type": "conv", "blobs": [blob([1], [1])]}, "bottom": ["b"]},
    ],
).SerializeToString()
STATE = message("SolverState", iter=5, learned_net="net", history=[blob([2], [1, 2])]).SerializeToString()


def touch_net(data: bytes) -> float:
    model = parse_net(memoryview(data), "net.file")
    for layer in model.layers:
        layer.to_new_layer("T")
        for number in layer.fields:
            layer.message(number)
    return float(sum(np.sum(each.array() != 0) for layer in model.layers for each in layer.blobs))


def touch_state(data: bytes) -> float:
    return float(sum(np.sum(each.array() != 0) for each in parse_state(memoryview(data), "net.file").history))


def touch_blob(data: bytes) -> float:
    return float(np.sum(parse_blob(memoryview(data), "net.file").array() != 0))


def sentence(read: Callable[[bytes], Any], data: bytes) -> str:
    """Return the sentence that reading `data` ends with, empty if it is read; any other exception goes through."""
    try:
        read(data)
    except WeightsError as error:
        assert str(error).startswith("net.file: ") and "\n" not in str(error) and len(str(error)) < 400
        return str(error)
    return ""


LOOSE = loose([3], ("loose", [1, 2]), ("packed", [3]))
SEEDS = [(touch_net, NET), (touch_net, OLD), (touch_state, STATE), (touch_blob, LOOSE)]


@pytest.mark.parametrize(("read", "data"), SEEDS)
def test_truncated_files(read: Callable[[bytes], Any], data: bytes) -> None:
    assert not sentence(read, data)
    refused = sum(bool(sentence(read, data[:size])) for size in range(len(data)))
    assert refused >= len(data) - 8  # what ends between two layers is a shorter file, and only its net can tell


@pytest.mark.parametrize(("read", "data"), SEEDS)
def test_every_bit_flipped(read: Callable[[bytes], Any], data: bytes) -> None:
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        sentence(read, bytes(damaged))


@given(st.sampled_from(SEEDS), st.data())
@settings(deadline=2000, max_examples=300)
def test_random_mutations(seed: tuple[Callable[[bytes], Any], bytes], draw: st.DataObject) -> None:
    read, data = seed
    pieces = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        at, size = draw.draw(st.integers(0, len(pieces))), draw.draw(st.integers(0, 12))
        likely = st.sampled_from([bytes(pieces[at : at + 40]), b"\xff" * 9, b"\x7b" * 200])
        pieces[at : at + size] = draw.draw(st.binary(max_size=12) | likely)
    sentence(read, bytes(pieces))


@given(st.binary(max_size=200))
@settings(deadline=2000)
def test_random_bytes(data: bytes) -> None:
    for read in (touch_net, touch_state, touch_blob):
        sentence(read, data)


def with_blob(*parts: bytes) -> bytes:
    return encode_message(100, encode_message(1, b"fc") + encode_message(7, b"".join(parts)))


def shape(*dims: int) -> bytes:
    return encode_message(7, encode_message(1, b"".join(map(encode_varint, dims))))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_blob(shape(10**6, 1000), b"\x2a\x040000"), "1000000x1000 asks for 1,000,000,000 values, 1 are stored"),
        (with_blob(shape(2)), "shape 2 asks for 2 values, 0 are stored"),
        (with_blob(b""), "a single number asks for 1 values, 0 are stored"),
        (with_blob(shape(2), encode_message(8, bytes(8))), "asks for 2 values, 1 are stored"),
        (with_blob(shape(-1)), "no blob has the shape -1"),
        (with_blob(shape(2**31)), "no blob has the shape 2147483648"),
        (with_blob(shape(0, *[2**31 - 1] * 20)), "no blob has the shape 0x2147483647x"),
        (with_blob(shape(*[1] * 33)), "a shape of more than 32 axes"),
        (with_blob(b"\x2a\x0300"), "field 5 claims 3 bytes, 2 are left"),
        (with_blob(b"\x2a\x03000"), "data of 3 bytes is no whole count of 4-byte numbers"),
        (with_blob(b"\x2a" + b"\xff" * 9 + b"\x01"), "claims 18,446,744,073,709,551,615 bytes"),
        (with_blob(b"\x28\x01"), "field 5 \\(data\\) is varint, it should be length-delimited"),
        (with_blob(b"\x38\x01"), "field 7 \\(shape\\) is varint"),
        (with_blob(b"\x0a\x00"), "field 1 \\(num\\) is length-delimited, it should be varint"),
        (with_blob(shape(1), b"\x62\x020<"), "raw_data of raw_data_type None; known are"),
        (with_blob(shape(1), b"\x50\x03\x62\x020<"), "raw_data of raw_data_type 3"),
        (with_blob(shape(1), b"\x50\x02\x62\x010"), "raw_data of 1 bytes is no whole count of 2-byte"),
        (with_blob(b"\x2d000"), "cut off in a number of 4 bytes"),
        (with_blob(b"\x80" * 11), "a number of more than 10 bytes"),
        (with_blob(b"\x08" + b"\xff" * 11), "a number of more than 10 bytes"),
        (with_blob(b"\x00\x00"), "0 is no field number"),
        (with_blob(b"\xff\xff\xff\xff\x7f"), "is no field number"),
        (with_blob(b"\x0e"), "wire type 6"),
        (with_blob(b"\x0c"), "wire type 4, which begins no field"),
        (with_blob(b"\x7b" * 1000), "groups nested more than 100 deep"),
        (with_blob(b"\x7b\x74"), "closes group 14, which is not the one that is open"),
        (with_blob(b"\x7b\x08"), "cut off in a number"),
        (with_blob(b"\x7b\x12\x09"), "a field runs past the end of its message"),
        (with_blob(b"\x7b"), "is never closed"),
        (with_blob(b"\x7b\x0e"), "wire type 6 does not exist"),
    ],
)
def test_wrong_sizes_are_errors_with_layer_and_blob(data: bytes, words: str) -> None:
    with pytest.raises(WeightsError, match=f"^net.file: layer 'fc' \\(type unknown\\): blob 0: .*{words}"):
        touch_net(data)


def test_errors_outside_of_layers() -> None:
    for data, words in (
        (encode_message(1, b"empty"), "holds no layers"),
        (encode_message(100, b"") + encode_message(2, b""), "mixes V2 layers"),
        (encode_message(100, b"\x12\x05x"), "layer number 1: byte 3: field 2 claims 5 bytes, 1 are left"),
        (encode_message(100, encode_message(1, b"x" * 500) + b"\x15"), "layer 'xxxxx.{60,80}[.]{3}' .*: byte"),
        (encode_message(2, encode_message(4, b"c") + b"\x2a\x00"), "layer 'c' .*\\(type\\) is length-delimited"),
    ):
        with pytest.raises(WeightsError, match=f"^net.file: {words}"):
            touch_net(data)


def test_a_wrong_size_does_not_allocate_memory() -> None:
    data = with_blob(shape(10**9 // 4, 4), encode_head(5, 4 * 10**9), b"0000")
    tracemalloc.start()
    assert "claims 4,000,000,000 bytes" in sentence(touch_net, data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


FLOODS = {
    "fields": b"\x78\x01" * 4_000_000,
    "layers": b"\xa2\x06\x00" * 4_000_000,
    "named layers": b"\xa2\x06\x03\x0a\x01a" * 2_000_000,
    "tops": encode_message(100, b"\x22\x00" * 4_000_000),
    "blobs": encode_message(100, b"\x3a\x00" * 4_000_000),
    "chunks": with_blob(b"\x2a\x040000" * 2_000_000),
    "broken runs": with_blob(b"\x2d0000\x2d0000\x08\x01" * 1_000_000),
    "groups": (b"\x7b" * 99 + b"\x7c" * 99) * 50_000,
}


@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS.keys())
def test_files_of_too_many_fields_are_refused_quickly(data: bytes) -> None:
    start = time.process_time()
    assert f"more than {MAX_FIELDS:,} fields" in sentence(touch_net, data)
    assert time.process_time() - start < 4  # it is about one second on a slow machine


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's peak memory")
def test_files_of_many_fields_need_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "flood.caffemodel"
    path.write_bytes(FLOODS["tops"])
    code = (
        "import sys\nfrom prototxt_gen import caffemodel\ntry: caffemodel.read(sys.argv[1])\n"
        "except caffemodel.WeightsError: print(*[s for s in open('/proc/self/status') if s.startswith('VmHWM')])"
    )
    root = Path(caffemodel.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[1]) * 1024 < 500e6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b'name: "net"\nlayer {\n  name: "conv"\n}\n', "is text"),
        ("name: '网络'\n".encode("gbk"), "is text"),
        (b"version https://git-lfs.example/spec/v1\noid sha256:0\nsize 9\n", "is a git-lfs pointer"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is a PNG picture"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "is a JPEG picture"),
        (b"PK\x03\x04\x14\0", "is a zip archive"),
        (gzip.compress(NET), "is compressed by gzip"),
        (b"<!DOCTYPE html>\n<html>", "is a web page"),
        (STATE, "begins like a .solverstate or a mean .binaryproto"),
        (b"\0" * 100, "byte 0: 0 is no field number"),
        (bytes(range(128, 256)), "byte 0: "),
    ],
)
def test_other_kinds_of_files_are_named_in_the_error(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        caffemodel.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_each_reader_names_the_files_of_the_others(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("net", "state", "mean")}
    paths["net"].write_bytes(NET)
    paths["state"].write_bytes(STATE)
    caffemodel.write_binaryproto(paths["mean"], np.ones((1, 3, 2, 2)))
    readers = {"net": caffemodel.read, "state": caffemodel.read_solverstate, "mean": caffemodel.read_binaryproto}
    for wanted, read in readers.items():
        for kind, path in paths.items():
            if kind != wanted:
                with pytest.raises(WeightsError):
                    read(path)
            else:
                read(path)
    paths["net"].write_bytes(encode_message(9, b"fork") + with_blob(shape(1), b"\x2a\x040000"))
    with pytest.raises(WeightsError, match="neither iter nor history"):
        caffemodel.read_solverstate(paths["net"])


def test_paths_that_are_not_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("pipe", "not a regular file"), ("", "not a regular file"), ("none", "No such file")):
        with pytest.raises(WeightsError, match=words):
            caffemodel.read(tmp_path / name)
