"""Reading and writing of weights files, compared with protobuf and with real files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel import NewLayer
from prototxt_gen.caffemodel.reading import V1_TYPES, parse_blob, parse_net
from prototxt_gen.caffemodel.wire import encode_head, encode_message, encode_varint
from prototxt_gen.caffemodel.writing import net_pieces
from prototxt_gen.common.errors import PrototxtGenError, WeightsError
from tests.support.caffemodel_oracle import MODELS, blob, loose, message, parsed

needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of real models is not there")


def real(*suffixes: str) -> list[Path]:
    return sorted(path for path in MODELS.glob("*/*") if path.name.endswith(suffixes))


def read_bytes(data: bytes) -> caffemodel.CaffeModel:
    return parse_net(memoryview(data), "net")


def read_net(**fields: Any) -> caffemodel.CaffeModel:
    return read_bytes(message("NetParameter", **fields).SerializeToString())


def one_blob(proto: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    return parse_blob(memoryview(data), "blob").array()


def oracle_shape(proto: Any) -> tuple[int, ...]:
    legacy = ("num", "channels", "height", "width")
    if any(proto.HasField(name) for name in legacy):
        return tuple(getattr(proto, name) for name in legacy)
    return tuple(proto.shape.dim)


def same_blob(stored: caffemodel.Blob, proto: Any) -> None:
    """Assert that our blob is protobuf's, bit for bit."""
    expected = np.array(proto.double_data or proto.data, np.float32)
    if proto.HasField("raw_data") and not expected.size:
        expected = np.frombuffer(proto.raw_data, "<f2").astype(np.float32)
    assert stored.shape == oracle_shape(proto)
    assert stored.array().dtype == np.float32
    assert stored.array().tobytes() == expected.tobytes()


def same_net(model: caffemodel.CaffeModel, proto: Any) -> None:
    assert model.name == proto.name
    assert len(model.layers) == len(proto.layer)
    for layer, other in zip(model.layers, proto.layer, strict=True):
        assert (layer.name, layer.type) == (other.name, other.type)
        assert (layer.bottoms, layer.tops) == (tuple(other.bottom), tuple(other.top))
        assert layer.fields >= {field.number for field, _ in other.ListFields()}
        for stored, expected in zip(layer.blobs, other.blobs, strict=True):
            same_blob(stored, expected)


floats = st.lists(st.floats(width=32), max_size=6)
names = st.text(max_size=4)
layer_dicts = st.fixed_dictionaries(
    {"name": names, "type": names, "bottom": st.lists(names, max_size=3), "top": st.lists(names, max_size=3)},
    optional={
        "phase": st.sampled_from([0, 1]),
        "loss_weight": floats,
        "propagate_down": st.lists(st.booleans(), max_size=3),
        "bn_param": st.fixed_dictionaries({"eps": st.floats(width=32), "frozen": st.booleans()}),
        "blobs": st.lists(floats.map(lambda data: {"shape": {"dim": [len(data)]}, "data": data}), max_size=3),
    },
)


@given(st.builds(dict, name=names, layer=st.lists(layer_dicts, min_size=1, max_size=4)))
@settings(deadline=None)
def test_any_net_is_read_as_protobuf_reads_it_and_copied_byte_for_byte(fields: dict[str, Any]) -> None:
    proto = message("NetParameter", **fields)
    data = proto.SerializeToString(deterministic=True)
    model = read_bytes(data)
    same_net(model, proto)
    again = parsed("NetParameter", b"".join(net_pieces(model.layers, model.name)))
    for layer in (*proto.layer, *again.layer):  # an empty name is not written, whether or not it was there
        for name in ("name", "type"):
            if not getattr(layer, name):
                layer.ClearField(name)
    assert again.SerializeToString() == proto.SerializeToString()


def test_packed_floats_are_a_view_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    caffemodel.write(path, [NewLayer("ip", "InnerProduct", [np.arange(6.0).reshape(2, 3)])])
    stored = caffemodel.read(path).layers[0].blobs[0]
    found = stored.array()
    assert np.shares_memory(found, np.frombuffer(stored.source, np.uint8)) and not found.flags.writeable
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_values_in_every_encoding() -> None:
    data = [1.0, -2.5, float("inf"), 4.0]
    for proto in (
        blob([4], data),
        message("BlobProto", shape={"dim": [4]}, double_data=data),
        message("BlobProto", shape={"dim": [4]}, raw_data_type=2, raw_data=np.array(data, "<f2").tobytes()),
        message("BlobProto", shape={"dim": [4]}, raw_data_type=1, raw_data=np.array(data, "<f4").tobytes()),
        message("BlobProto", shape={"dim": [4]}, raw_data_type=0, raw_data=np.array(data, "<f8").tobytes()),
        message("Loose", shape={"dim": [4]}, data=data),
        message("Loose", shape={"dim": [4]}, double_data=data),
        message("BlobProto", shape={"dim": [4]}, data=data, diff=[0.0] * 4, double_diff=[0.0] * 4),
        loose([4], ("packed", data[:1]), ("packed", data[1:])),
        loose([4], ("loose", data[:3]), ("packed", data[3:])),
        loose([4], ("packed", []), ("loose", data[:1]), ("packed", data[1:2]), ("loose", data[2:])),
    ):
        assert one_blob(proto).tolist() == data


def test_a_long_run_of_unpacked_floats_is_one_strided_view() -> None:
    data = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    proto = message("Loose", data=data.tolist(), shape={"dim": [100_000]})
    found = parse_blob(memoryview(proto.SerializeToString()), "blob")
    assert len(found.spans) == 1
    assert found.array().tobytes() == data.tobytes()


def test_nan_keeps_its_bits_and_too_large_doubles_become_infinite() -> None:
    bits = np.array([0x7FC00001, 0xFF800000, 0x7F800000], "<u4")
    assert one_blob(blob([3], bits.view("<f4").tolist())).view("<u4").tolist()[1:] == bits.tolist()[1:]
    raw = message("BlobProto", shape={"dim": [3]}).SerializeToString() + encode_message(5, bits.tobytes())
    assert one_blob(raw).tobytes() == bits.tobytes()
    assert one_blob(message("BlobProto", shape={"dim": [2]}, double_data=[1e300, -1e300])).tolist() == [np.inf, -np.inf]


def test_old_and_new_forms_of_shapes() -> None:
    old = message("BlobProto", num=1, channels=1, height=1, width=2, shape={"dim": [2]}, data=[1, 2])
    found = parse_blob(memoryview(old.SerializeToString()), "blob")
    assert (found.shape, found.legacy) == ((1, 1, 1, 2), True)
    assert one_blob(message("BlobProto", data=[7])).shape == ()
    assert one_blob(blob([2, 0, 3], [])).shape == (2, 0, 3)
    split = blob([2], []).SerializeToString() + blob([3], [0.0] * 6).SerializeToString()  # messages merge
    assert one_blob(split).shape == oracle_shape(parsed("BlobProto", split)) == (2, 3)


def test_v1_and_v0_layers() -> None:
    weights = blob([2], [1, 2])
    v1 = read_net(layers=[{"name": "c", "type": 4, "bottom": ["a"], "top": ["b"], "blobs": [weights]}, {"type": 42}])
    assert v1.version == "V1"
    assert [(layer.name, layer.type) for layer in v1.layers] == [("c", "Convolution"), ("", "V1:42")]
    assert (v1.layers[0].bottoms, v1.layers[0].tops) == (("a",), ("b",))
    assert sorted(v1.layers[0].fields) == [2, 3, 4, 5, 6]
    inner = {"name": "c", "type": "conv", "num_output": 2, "blobs": [weights]}
    v0 = read_net(layers=[{"layer": inner, "bottom": ["a"], "top": ["b"], "name": "not this"}])
    layer = v0.layers[0]
    assert (v0.version, layer.version, layer.name, layer.type) == ("V0", "V0", "c", "conv")
    assert (layer.bottoms, layer.tops, layer.fields) == (("a",), ("b",), frozenset({1, 2, 3, 50}))
    for each in (v0, v1):
        assert each.layers[0].blobs[0].array().tolist() == [1, 2]


def test_the_v1_types_are_numbered_as_in_the_schema() -> None:
    known = {4: "Convolution", 14: "InnerProduct", 18: "ReLU", 21: "SoftmaxWithLoss", 25: "Eltwise", 35: "AbsVal"}
    assert {number: V1_TYPES[number] for number in known} == known
    assert len(V1_TYPES) == 40 and V1_TYPES[39] == "Deconvolution"


def test_field_numbers_of_parameters_show_the_fork() -> None:
    fields = {"name": "bn", "type": "BN", "bn_param": {"eps": 0.5}, "phase": 1, "param": [{}, {}]}
    layer = read_net(layer=[fields]).layers[0]
    found = layer.message(148)
    assert found is not None and parsed("BNParameter", bytes(found)).eps == 0.5
    assert layer.fields == {1, 2, 6, 10, 148}
    assert layer.phase == "TEST"
    assert len(layer.messages(6)) == 2 and layer.message(137) is None


def test_a_name_that_is_not_utf8_is_kept() -> None:
    raw = encode_message(100, encode_message(1, "卷积".encode("gbk")))
    model = read_bytes(raw)
    assert b"".join(net_pieces(model.layers, ""))[2:] == raw


def test_groups_and_unknown_fields_are_skipped() -> None:
    group = b"\x7b" + b"\x08\x01" + b"\x7b\x7c" + b"\x12\x01x" + b"\x1d0000" + b"\x7c"
    raw = group + encode_message(100, encode_message(1, b"a") + group + encode_message(7, group + b"\x2a\x040000"))
    assert read_bytes(raw).layers[0].blobs[0].shape == ()


def test_protobuf_reads_written_arrays(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    weight, bias = np.random.default_rng(0).random((3, 2, 1, 1)), np.float32(3)
    bn = message("BNParameter", eps=0.5).SerializeToString()
    new = NewLayer("a/b", "BN", [weight[::-1], np.asarray(bias)], ["x", "y"], ["z"], "TEST", {148: bn})
    caffemodel.write(path, iter([new, NewLayer("relu", "ReLU")]), "net")
    proto = parsed("NetParameter", path.read_bytes())
    assert proto.SerializeToString() == path.read_bytes()
    assert (proto.name, proto.layer[0].phase, proto.layer[0].bn_param.eps) == ("net", 1, 0.5)
    same_net(caffemodel.read(path), proto)
    assert list(proto.layer[0].blobs[0].data) == weight[::-1].astype(np.float32).ravel().tolist()
    assert list(proto.layer[0].blobs[1].shape.dim) == []


def test_old_shapes_are_copied_in_the_old_form() -> None:
    old = {"num": 1, "channels": 1, "height": 1, "width": 2, "data": [1, 2]}
    net = message("NetParameter", layer=[{"name": "ip", "blobs": [old]}])
    copied = b"".join(net_pieces(read_bytes(net.SerializeToString()).layers, ""))
    assert parsed("NetParameter", copied).layer[0].blobs[0] == net.layer[0].blobs[0]


def test_older_files_become_v2(tmp_path: Path) -> None:
    fields = {"name": "c", "type": 4, "bottom": ["a"], "top": ["b"], "blobs": [blob([1], [2])], "blobs_lr": [1]}
    caffemodel.write(tmp_path / "new", read_net(layers=[fields]).layers)
    layer = caffemodel.read(tmp_path / "new").layers[0]
    assert (layer.version, layer.type, layer.bottoms, layer.tops) == ("V2", "Convolution", ("a",), ("b",))
    assert layer.blobs[0].array().tolist() == [2]
    v0 = read_net(layers=[{"layer": {"name": "c", "type": "conv"}}]).layers[0]
    with pytest.raises(WeightsError, match="layer 'c': a V0 file does not have its V2 type"):
        v0.to_new_layer()
    assert v0.to_new_layer("Convolution").type == "Convolution"


def test_writing_replaces_a_file_only_with_force_and_leaves_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    caffemodel.write(path, [NewLayer("a", "ReLU")])
    before = path.read_bytes()
    with pytest.raises(PrototxtGenError, match="already exists"):
        caffemodel.write(path, [NewLayer("b", "ReLU")])
    with pytest.raises(WeightsError, match="layer 'b': field 7 is its blobs"):
        caffemodel.write(path, [NewLayer("b", "ReLU", params={7: b""})], force=True)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    caffemodel.write(path, caffemodel.read(path).layers, "named", force=True)  # from the very file it replaces
    assert caffemodel.read(path).name == "named"
    with pytest.raises(PrototxtGenError, match="cannot be written"):
        caffemodel.write(path / "net", [])


def test_more_than_two_gibibytes_open_at_once(tmp_path: Path) -> None:
    count, path = 700_000_000, tmp_path / "large.caffemodel"
    tail = encode_message(7, encode_message(1, encode_varint(count)))
    start = encode_message(1, b"large") + encode_head(7, 4 * count + len(tail) + 6) + encode_head(5, 4 * count)
    with path.open("wb") as file:
        file.write(encode_head(100, len(start) + 4 * count + len(tail)) + start)
        file.seek(4 * count, os.SEEK_CUR)
        file.write(tail + encode_message(100, encode_message(1, b"after")))
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no sparse files")
    model = caffemodel.read(path)
    assert [layer.name for layer in model.layers] == ["large", "after"]
    assert model.layers[0].blobs[0].array()[-2:].tolist() == [0, 0]
    model.release_pages()


def test_five_thousand_layers_open_quickly(tmp_path: Path) -> None:
    path = tmp_path / "deep.caffemodel"
    layers = (NewLayer(f"layer{i}", "Scale", [np.ones((4, 4, 3, 3)), np.ones(4)], ["a"], ["b"]) for i in range(5000))
    caffemodel.write(path, layers)
    start = time.process_time()
    assert len(caffemodel.read(path).layers) == 5000
    assert time.process_time() - start < 1


def test_importing_needs_neither_h5py_nor_protobuf() -> None:
    code = "import sys, prototxt_gen.caffemodel; sys.exit(bool({'h5py', 'google.protobuf'} & set(sys.modules)))"
    root = Path(caffemodel.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@needs_models
@pytest.mark.parametrize("path", real(".caffemodel"), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_real_v2_files_are_read_as_protobuf_reads_them_and_copied(path: Path, tmp_path: Path) -> None:
    model, proto = caffemodel.read(path), parsed("NetParameter", path.read_bytes())
    assert model.version == "V2"
    same_net(model, proto)
    caffemodel.write(tmp_path / "copy", model.layers, model.name)
    if path.parent.name == "xilinx-face-detection":  # has fields of its own in net and blobs
        same_net(caffemodel.read(tmp_path / "copy"), proto)
    else:
        assert (tmp_path / "copy").read_bytes() == path.read_bytes()


@needs_models
def test_the_real_v1_file_without_a_suffix() -> None:
    path = MODELS / "lenet-fooling-old" / "lenet_iter_10000"
    model, proto = caffemodel.read(path), parsed("NetParameter", path.read_bytes())
    assert (model.version, model.name, len(model.layers)) == ("V1", "LeNet", len(proto.layers))
    for layer, other in zip(model.layers, proto.layers, strict=True):
        assert (layer.name, layer.type, layer.tops) == (other.name, V1_TYPES[other.type], tuple(other.top))
        for stored, expected in zip(layer.blobs, other.blobs, strict=True):
            same_blob(stored, expected)
