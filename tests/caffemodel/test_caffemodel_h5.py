"""Weights in HDF5, solver states in both formats, mean files."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel import NewLayer
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError, WeightsError
from tests.support.caffemodel_oracle import MODELS, blob, message, parsed

WEIGHT, BIAS = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, np.nan], np.float32)
LAYERS = [NewLayer("ip", "InnerProduct", [WEIGHT, BIAS]), NewLayer("conv", "Conv", [WEIGHT]), NewLayer("relu", "ReLU")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.caffemodel.h5"


def is_view(stored: caffemodel.Blob) -> bool:
    """Tell whether the blob's numbers are those in the mapped file, not a copy of them."""
    return np.shares_memory(stored.array(), np.frombuffer(stored.source, np.uint8))


def rejected(path: Path, words: str, read: Callable[[Path], Any] = caffemodel.read) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_what_is_written_has_caffes_layout_and_is_read_back(path: Path) -> None:
    caffemodel.write(path, LAYERS)
    with h5py.File(path) as file:
        assert sorted(file["data"]) == ["conv", "ip", "relu"] and len(file["data/relu"]) == 0
        assert file["data/ip/1"].dtype == np.float32 and file["data/ip/0"][()].tolist() == WEIGHT.tolist()
    model = caffemodel.read(path.rename(path.with_name("named otherwise")))
    assert model.version == "HDF5"
    assert [(layer.name, layer.type, layer.positions) for layer in model.layers] == [
        ("conv", "", (0,)),
        ("ip", "", (0, 1)),
        ("relu", "", ()),
    ]
    stored = model.layers[1].blobs[1]
    assert stored.array().tobytes() == BIAS.tobytes() and is_view(stored)


@pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of real models is not there")
def test_the_real_file() -> None:
    path = MODELS / "cifar10-armcmsis-m4-h5" / "cifar10_m4_iter_70000.caffemodel.h5"
    model = caffemodel.read(path)
    assert len(model.layers) == 12
    with h5py.File(path) as file:
        for layer in model.layers:
            assert len(layer.blobs) == len(file["data"][layer.name])
            for place, stored in zip(layer.positions, layer.blobs, strict=True):
                assert np.array_equal(stored.array(), file[f"data/{layer.name}/{place}"][()])
                assert is_view(stored)


def test_shared_blobs_are_missing_in_the_file(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data/ip/1"] = BIAS
    layer = caffemodel.read(path).layers[0]
    assert layer.positions == (1,) and len(layer.blobs) == 1
    caffemodel.write(path.with_name("copy.h5"), [layer])
    assert caffemodel.read(path.with_name("copy.h5")).layers[0].positions == (1,)


def test_forms_that_caffe_can_read_but_does_not_write(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=1024) as file:
        group = file.create_group("data/a/b")  # a slash in a layer's name
        group.create_dataset("0", data=WEIGHT, chunks=(1, 3), compression="gzip")
        group["1"] = BIAS.astype(">f8")
        group["2"] = np.array([[1, 2]])
        group["3"] = np.float32(5)
        group["4"] = np.zeros((0, 3), np.float32)
        file["data/plain/0"] = WEIGHT
    model = caffemodel.read(path)
    assert [layer.name for layer in model.layers] == ["a/b", "plain"]
    found = [stored.array() for stored in model.layers[0].blobs]
    assert found[1].tobytes() == BIAS.astype(np.float64).astype(np.float32).tobytes()
    assert [each.shape for each in found] == [(2, 3), (2,), (1, 2), (), (0, 3)]
    assert found[0].tolist() == WEIGHT.tolist() and found[2].tolist() == [[1, 2]] and found[3] == 5
    assert all(each.dtype == np.float32 for each in found)
    copy = path.with_name("copy.caffemodel")
    caffemodel.write(copy, [layer.to_new_layer("Convolution") for layer in model.layers])
    assert list(parsed("NetParameter", copy.read_bytes()).layer[0].blobs[0].data) == WEIGHT.ravel().tolist()
    with pytest.raises(WeightsError, match="layer 'a/b': Caffe finds no such name in HDF5"):
        caffemodel.write(path.with_name("slash.h5"), model.layers)
    assert not path.with_name("slash.h5").exists()


def damage(path: Path, change: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "w") as file:
        file["data/ip/0"] = WEIGHT
        change(file)
    return path


def ring(file: h5py.File) -> None:
    file["data/ip/loop"] = file["data"]


def claim(file: h5py.File, **options: Any) -> None:
    file.create_dataset("data/ip/1", (10**9,), "f4", **options)


def bomb(file: h5py.File) -> None:
    claim(file, chunks=(10**6,), compression="gzip")
    file["data/ip/1"][:1] = 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.move("data", "other"), "has no group /data"),
        (lambda file: file["data"].pop("ip"), "holds no layers"),
        (lambda file: file["data/ip"].move("0", "weight"), "layer 'ip': array 'weight' is not named by a number"),
        (lambda file: file["data/ip"].__setitem__("1", "text"), "layer 'ip': blob 1: is no array of numbers"),
        (lambda file: file["data"].__setitem__("x", h5py.ExternalLink("other.h5", "/")), "'x' is a link to somewhere"),
        (lambda file: file["data"].__setitem__("x", h5py.SoftLink("/data")), "'x' is a link"),
        (ring, "deeper, than any net has"),
        (claim, "layer 'ip': blob 1: claims 4,000,000,000 bytes, 0 are stored"),
        (bomb, "layer 'ip': blob 1: claims 4,000,000,000 bytes, "),
        (lambda file: claim(file, external=[("elsewhere", 0, 4 * 10**9)]), "blob 1: is no array of numbers that the"),
    ],
)
def test_files_that_caffe_never_writes_are_refused(change: Callable[[h5py.File], Any], words: str, path: Path) -> None:
    rejected(damage(path, change), words)


def test_damaged_files_give_a_clear_error(path: Path, tmp_path: Path) -> None:
    caffemodel.write(path, LAYERS)
    whole, chance, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        data = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.2 else whole)
        for _ in range(chance.choice([1, 2, 10])):
            if data:
                data[chance.randrange(len(data))] = chance.choice([0, 1, 255, chance.randrange(256)])
        path.write_bytes(data)
        try:
            for layer in caffemodel.read(path).layers:
                assert all(stored.array().dtype == np.float32 for stored in layer.blobs)
        except WeightsError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 50


def test_without_h5py_the_error_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caffemodel.write(path, LAYERS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    for action in (lambda: caffemodel.read(path), lambda: caffemodel.write(path, LAYERS, force=True)):
        with pytest.raises(RuntimeMissingError, match="pip install h5py"):
            action()


@pytest.mark.parametrize("suffix", [".solverstate", ".solverstate.h5"])
def test_solver_states(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"state{suffix}"
    history = [WEIGHT, BIAS, *(np.full(1, number, np.float32) for number in range(10))]  # 12: "10" comes before "2"
    caffemodel.write_solverstate(path, iter=7, learned_net="nets/é.caffemodel", history=history, current_step=2)
    state = caffemodel.read_solverstate(path)
    assert (state.iter, state.learned_net, state.current_step) == (7, "nets/é.caffemodel", 2)
    assert [each.array().tobytes() for each in state.history] == [each.tobytes() for each in history]
    with pytest.raises(PrototxtGenError, match="already exists"):
        caffemodel.write_solverstate(path, iter=7, learned_net="", history=state.history)
    rejected(path, "begins like|has no group /data")
    if suffix.endswith("h5"):
        with h5py.File(path) as file:
            assert file["iter"].shape == (1,)
            assert file["learned_net"].dtype.itemsize == len("nets/é.caffemodel".encode()) + 1
    else:
        assert parsed("SolverState", path.read_bytes()).iter == 7


def test_inconsistent_solver_states_are_refused(path: Path) -> None:
    def state(**members: Any) -> Path:
        usual = {"iter": np.array([1]), "learned_net": np.bytes_(b"n"), "history/0": BIAS}
        with h5py.File(path, "w") as file:
            for name, value in {**usual, **members}.items():
                file[name] = value
        return path

    assert caffemodel.read_solverstate(state()).current_step == 0
    rejected(state(iter=np.zeros(9)), "/iter is not one integer", caffemodel.read_solverstate)
    rejected(state(learned_net=np.zeros(9)), "/learned_net is not one name", caffemodel.read_solverstate)
    rejected(state(**{"history/2": BIAS}), "not numbered from 0 without a gap", caffemodel.read_solverstate)
    caffemodel.write(path, LAYERS, force=True)
    rejected(path, "has no group /history", caffemodel.read_solverstate)


@pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of real models is not there")
@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*.solverstate")), ids=lambda path: path.name)
def test_real_solver_states(path: Path, tmp_path: Path) -> None:
    state, proto = caffemodel.read_solverstate(path), parsed("SolverState", path.read_bytes())
    assert (state.iter, state.learned_net, state.current_step) == (proto.iter, proto.learned_net, proto.current_step)
    for stored, expected in zip(state.history, proto.history, strict=True):
        assert stored.array().tobytes() == np.array(expected.data, np.float32).tobytes()
    copy = tmp_path / "copy"
    caffemodel.write_solverstate(
        copy, iter=state.iter, learned_net=state.learned_net, history=state.history, current_step=state.current_step
    )
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of real models is not there")
@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*.binaryproto")), ids=lambda path: path.name)
def test_real_mean_files(path: Path, tmp_path: Path) -> None:
    found, proto = caffemodel.read_binaryproto(path), parsed("BlobProto", path.read_bytes())
    assert found.shape == (proto.num, proto.channels, proto.height, proto.width)
    assert found.tobytes() == np.array(proto.data, np.float32).tobytes()
    caffemodel.write_binaryproto(tmp_path / "copy", found)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_mean_files_of_other_shapes(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    caffemodel.write_binaryproto(path, WEIGHT)
    assert path.read_bytes() == blob([2, 3], WEIGHT.ravel().tolist()).SerializeToString()
    path.write_bytes(message("BlobProto", num=1, channels=2, data=[1, 2]).SerializeToString())
    rejected(path, "shape 1x2x0x0 asks for 0 values, 2 are stored", caffemodel.read_binaryproto)
