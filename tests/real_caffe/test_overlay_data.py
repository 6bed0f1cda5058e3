"""Caffe's own data layers and Python layers: LMDB, encoded images, mean files, and errors as exceptions."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.caffe_support import Array, caffe_or_skip, input_layer, make_net

pytestmark = pytest.mark.caffe

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 7), np.uint8)


def write_lmdb(folder: Path, encoded: bool = False, count: int = len(IMAGES)) -> Path:
    lmdb = pytest.importorskip("lmdb")
    caffe_or_skip()
    from caffe.proto import caffe_pb2

    with lmdb.open(str(folder / "lmdb"), map_size=1 << 24) as database, database.begin(write=True) as transaction:
        for index, image in enumerate(IMAGES[:count]):
            datum = caffe_pb2.Datum(channels=3, height=6, width=7, label=index, encoded=encoded)
            datum.data = png(image) if encoded else image.tobytes()
            transaction.put(b"%08d" % index, datum.SerializeToString())
    return folder / "lmdb"


def png(image: Array) -> bytes:
    if "ImageData" not in caffe_or_skip().layer_type_list() and os.environ.get("PROTOTXT_GEN_REQUIRE_CAFFE") != "1":
        pytest.skip("this Caffe was built without OpenCV")
    pil = pytest.importorskip("PIL.Image")
    target = io.BytesIO()
    pil.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)[:, :, ::-1])).save(target, "PNG")
    return target.getvalue()


def data_layer(source: Path, transform: str = "", batch: int = 2) -> str:
    return (
        f'layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ {transform} }} '
        f'data_param {{ source: "{source}" backend: LMDB batch_size: {batch} }} }}\n'
    )


@pytest.mark.parametrize("encoded", [False, True])
def test_lmdb_is_read_in_order_and_repeats(encoded: bool, tmp_path: Path) -> None:
    net = make_net(tmp_path, data_layer(write_lmdb(tmp_path, encoded)))
    labels = []
    for _ in range(4):
        out = net.forward()
        labels += [int(label) for label in out["label"]]
        np.testing.assert_array_equal(out["data"], IMAGES[labels[-2:]])
    assert labels == [0, 1, 2, 3, 4, 0, 1, 2]


def test_two_nets_each_read_a_database_from_its_start(tmp_path: Path) -> None:
    text = data_layer(write_lmdb(tmp_path))
    nets = [make_net(tmp_path, text), make_net(tmp_path, text, train=True)]
    assert [list(net.forward()["label"]) for net in (*nets, *nets)] == [[0, 1], [0, 1], [2, 3], [2, 3]]


@pytest.mark.parametrize("encoded", [False, True])
def test_mean_file_is_cropped_and_mirrored_with_the_image(encoded: bool, tmp_path: Path) -> None:
    caffe_or_skip()
    from caffe.proto import caffe_pb2

    mean = np.random.default_rng(1).uniform(0, 255, (3, 6, 7)).astype(np.float32)
    proto = caffe_pb2.BlobProto(num=1, channels=3, height=6, width=7, data=mean.ravel())
    (tmp_path / "mean.binaryproto").write_bytes(proto.SerializeToString())
    transform = f'crop_size: 4 mirror: true mean_file: "{tmp_path}/mean.binaryproto" scale: 0.5'
    net = make_net(tmp_path, data_layer(write_lmdb(tmp_path, encoded, count=1), transform, batch=1))
    plain = ((IMAGES[0] - mean) * np.float32(0.5))[:, 1:5, 1:5]
    seen = set()
    for _ in range(40):
        crop = net.forward()["data"][0]
        mirrored = not np.allclose(crop, plain, atol=1e-4)
        np.testing.assert_allclose(crop, plain[:, :, ::-1] if mirrored else plain, atol=1e-4)
        seen.add(mirrored)
    assert seen == {False, True}


def test_images_of_a_list_file(tmp_path: Path) -> None:
    caffe_or_skip()
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(png(IMAGES[index]))
    (tmp_path / "list.txt").write_text("0.png 7\n1.png 9\n", encoding="utf-8")
    source = f'image_data_param {{ source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/" batch_size: 2 }}'
    net = make_net(tmp_path, f'layer {{ name: "data" type: "ImageData" top: "data" top: "label" {source} }}')
    out = net.forward()
    np.testing.assert_array_equal(out["data"], IMAGES[:2])
    assert list(out["label"]) == [7, 9]


@pytest.mark.parametrize(("count", "why"), [(0, "is empty"), (None, "No such file")])
def test_unreadable_database_is_an_exception(count: int | None, why: str, tmp_path: Path) -> None:
    source = tmp_path / "nowhere" if count is None else write_lmdb(tmp_path, count=count)
    with pytest.raises(caffe_or_skip().CheckError, match=rf"creation of layer 'data' \(Data\).*{why}"):
        make_net(tmp_path, data_layer(source))


def python_layer(**methods: Any) -> str:
    """Return the prototxt of a Python layer whose class has these methods (and setup and reshape)."""

    def reshape(self: Any, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].data.shape)

    body = {"setup": lambda self, bottom, top: None, "reshape": reshape, **methods}
    module = ModuleType("layers_of_this_test")
    module.__dict__["It"] = type("It", (caffe_or_skip().Layer,), {k: v for k, v in body.items() if v is not None})
    sys.modules[module.__name__] = module
    where = f'python_param {{ module: "{module.__name__}" layer: "It" param_str: "3" }}'
    layer = f'layer {{ name: "it" type: "Python" bottom: "x" top: "y" {where} }}'
    return f"force_backward: true\n{input_layer('x', (2, 3))}{layer}"


def test_a_python_layer_has_its_parameter_phase_blobs_and_gradient(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def setup(self: Any, bottom: Any, top: Any) -> None:
        seen.update(phase=self.phase, type=self.type)
        self.factor = float(self.param_str)
        self.blobs.add_blob(2, 2)
        self.blobs[0].data[...] = 1

    def forward(self: Any, bottom: Any, top: Any) -> None:
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self: Any, top: Any, propagate_down: Any, bottom: Any) -> None:
        seen["propagate_down"] = propagate_down
        bottom[0].diff[...] = self.factor * top[0].diff

    net = make_net(tmp_path, python_layer(setup=setup, forward=forward, backward=backward))
    net.blobs["x"].data[...] = 2
    assert (net.forward()["y"] == 6).all()
    net.blobs["y"].diff[...] = 5
    assert (net.backward()["x"] == 15).all()
    assert seen == {"phase": caffe_or_skip().TEST, "type": "Python", "propagate_down": [True]}
    assert net.params["it"][0].data.shape == (2, 2)


def test_exception_of_a_python_layer_is_passed_on_unchanged(tmp_path: Path) -> None:
    def forward(self: Any, bottom: Any, top: Any) -> None:
        raise KeyError("of the layer")

    net = make_net(tmp_path, python_layer(forward=forward))
    with pytest.raises(KeyError, match="of the layer"):
        net.forward()


def test_python_layer_without_a_method_is_reported(tmp_path: Path) -> None:
    net = make_net(tmp_path, python_layer(forward=None))
    with pytest.raises(caffe_or_skip().CheckError, match=r"forward of layer 'it' \(Python\).*It has no method forward"):
        net.forward()


def test_caffes_data_functions_round_trip(tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    np.testing.assert_array_equal(caffe.io.datum_to_array(caffe.io.array_to_datum(IMAGES[0], 3)), IMAGES[0])
    blob = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(caffe.io.array_to_blobproto(blob)), blob)
    transformer = caffe.io.Transformer({"data": (1, 3, 6, 7)})
    transformer.set_transpose("data", (2, 0, 1))
    np.testing.assert_array_equal(transformer.preprocess("data", IMAGES[0].transpose(1, 2, 0)), IMAGES[0])


def test_net_spec_writes_what_caffe_reads(tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    spec = caffe.NetSpec()
    spec.data = caffe.layers.Input(input_param={"shape": {"dim": [1, 2, 5, 5]}})
    spec.up = caffe.layers.Interp(spec.data, zoom_factor=2)
    spec.bn = caffe.layers.BN(spec.up, eps=1e-3, in_place=True)
    net = make_net(tmp_path, str(spec.to_proto()))
    assert net.blobs["up"].data.shape == (1, 2, 9, 9)
    assert list(net.params) == ["bn"]


def test_other_threads_run_while_caffe_computes(tmp_path: Path) -> None:
    param = 'convolution_param { num_output: 32 kernel_size: 5 pad: 2 weight_filler { type: "xavier" } }'
    text = input_layer("x", (4, 32, 128, 128))
    net = make_net(
        tmp_path, text + f'layer {{ name: "y" type: "Convolution" bottom: "x" top: "y" {param} }}', train=True
    )
    done, ticks = threading.Event(), []

    def tick() -> None:
        while not done.wait(0.001):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    while time.perf_counter() - start < 0.3:
        before = time.perf_counter()
        net.forward()
        after = time.perf_counter()
    done.set()
    thread.join()
    assert sum(before < tick < after for tick in ticks) >= 5


def test_nets_can_be_made_in_several_threads(tmp_path: Path) -> None:
    def make(index: int) -> float:
        folder = tmp_path / str(index)
        folder.mkdir()
        net = make_net(folder, input_layer("x", (1, index + 1)))
        net.blobs["x"].data[...] = index
        return float(net.forward()["x"].sum())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(200))) == [index * (index + 1) for index in range(200)]
