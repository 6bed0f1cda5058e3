"""Models on their way back to a .caffemodel: what was changed arrives, what does not fit is told, nothing is lost."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import numpy_helper

from prototxt_gen import analyse, caffemodel, parse_net
from prototxt_gen.caffemodel import NewLayer
from prototxt_gen.cli import cli
from prototxt_gen.schema.dialect import dialect
from prototxt_gen.weights import Weights, write
from tests.support.sane_weights import sane_weights

Array = np.ndarray[Any, Any]
NET = """name: "small" input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false } }
layer { name: "n" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip" inner_product_param { num_output: 5 } }
"""


def convert(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


def blobs(path: Path) -> dict[str, list[Array]]:
    return {layer.name: [blob.array() for blob in layer.blobs] for layer in caffemodel.read(path).layers if layer.blobs}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a net and its weights, the factor 1 and a variance of 0 among them."""
    analysis = analyse(parse_net(NET))
    found = {name: dict(roles) for name, roles in sane_weights(analysis).blobs.items()}
    found["n"]["factor"] = np.ones(1, "float32")
    found["n"]["variance"][:2] = 0, 1e-20
    write(tmp_path / "w.caffemodel", analysis, Weights(found), dialect("bvlc"))
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


def there(place: Path) -> tuple[Path, Path]:
    """Convert to ONNX, nothing folded, and to PyTorch."""
    usual = [place / "net.prototxt", place / "w.caffemodel", "--no-verify"]
    for form, name, *more in (("onnx", "m.onnx", "--no-fold"), ("pytorch", "m")):
        assert convert(form, *usual, "-o", place / name, *more).exit_code == 0
    return place / "m.onnx", place / "m" / "model.safetensors"


def back(model: Path, *more: Any) -> Result:
    return convert("caffemodel", model, "-o", model.parent / "back.caffemodel", "--force", *more)


def test_what_was_not_changed_is_the_same_to_the_bit(place: Path) -> None:
    wanted = blobs(place / "w.caffemodel")
    for model in there(place):
        assert back(model).exit_code == 0
        found = blobs(model.parent / "back.caffemodel")
        assert {name: [a.tobytes() for a in each] for name, each in found.items()} == {
            name: [a.tobytes() for a in each] for name, each in wanted.items()
        }


def test_what_was_changed_arrives(place: Path) -> None:
    from safetensors.torch import load_file

    one, other = there(place)
    model = onnx.load(one)
    for held in model.graph.initializer:
        if held.data_type == onnx.TensorProto.FLOAT:
            held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) + 1, held.name))
    onnx.save(model, one)
    assert back(one).exit_code == 0
    state = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in load_file(other).items()}
    torch.save({"state_dict": state, "epoch": 3}, place / "m.pth")
    torch.save({name: tensor.double() for name, tensor in state.items()}, place / "m.pt")
    wanted = blobs(place / "w.caffemodel")
    for path in (one, place / "m.pt", place / "m.pth"):
        assert back(path, "--net", place / "net.prototxt").exit_code == 0
        for name, each in blobs(place / "back.caffemodel").items():
            for index, array in enumerate(each):
                same = wanted[name][index] + (0 if (name, index) == ("n", 2) else 1)  # the factor
                np.testing.assert_array_equal(array, same, f"{path.suffix} {name} {index}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"c.bias": torch.zeros(4)}, "c.bias is too much: the net's layer has none"),
        ({"c.weight": torch.zeros(4, 3, 5, 5)}, "c.weight is (4, 3, 5, 5), the net has (4, 3, 3, 3)"),
        ({"c.weight": None}, "not a state_dict of real numbers: it holds 'c.weight': NoneType"),
        ({"c.weight": torch.zeros(4, 3, 3, 3, dtype=torch.complex64)}, "'c.weight': torch.complex64"),
        ({"c.weight": [1, 2]}, "'c.weight': list"),
        ({"c.weight": torch.zeros(4, 3, 3, 3).to_sparse()}, "'c.weight': torch.sparse_coo"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_one_error(change: dict[str, Any], said: str, place: Path) -> None:
    from safetensors.torch import load_file

    _, stored = there(place)
    torch.save({**load_file(stored), **change}, place / "m.pt")
    done = back(place / "m.pt", "--net", place / "net.prototxt")
    assert done.exit_code == 1 and said in done.stderr and done.stderr.startswith("error: ")
    assert not (place / "back.caffemodel").exists()


class Hostile:
    """Pickled, it writes a file when it is loaded by pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_in_a_sentence(zipped: bool, place: Path) -> None:
    torch.save({"c.weight": Hostile(place / "ran")}, place / "m.pt", _use_new_zipfile_serialization=zipped)
    done = back(place / "m.pt", "--net", place / "net.prototxt")
    assert done.exit_code == 1 and not (place / "ran").exists()
    assert "system" in done.stderr and "weights_only" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_an_archive_that_unpacks_to_much_more_is_refused(member: str, place: Path) -> None:
    torch.save({"c.weight": torch.zeros(2)}, place / "m.pt")
    with zipfile.ZipFile(place / "m.pt") as sound, zipfile.ZipFile(place / "b.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in sound.namelist():
            bomb.writestr(name, b"]" * 10**6 if name.endswith(member) else sound.read(name))
    done = back(place / "b.pt", "--net", place / "net.prototxt")
    assert done.exit_code == 1 and "torch writes no such file" in done.stderr


@pytest.mark.parametrize(
    ("what", "said"), [([1], "holds a list, not a state_dict"), (torch.nn.Linear(1, 1), "Unsupported global")]
)
def test_what_is_no_state_dict_is_told(what: object, said: str, place: Path) -> None:
    torch.save(what, place / "m.pt")
    done = back(place / "m.pt", "--net", place / "net.prototxt")
    assert done.exit_code == 1 and said in done.stderr and done.stderr.count("\n") == 1


def test_arrays_beside_the_model_that_are_gone_are_told(place: Path) -> None:
    one, _ = there(place)
    onnx.save(onnx.load(one), place / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    assert back(place / "e.onnx").exit_code == 0
    (place / "e.data").unlink()
    done = back(place / "e.onnx")
    assert done.exit_code == 1 and "e.data" in done.stderr


def test_another_net_is_one_error(place: Path) -> None:
    (place / "other.prototxt").write_text(NET.replace('name: "ip" type', 'name: "fc" type'))
    for model, said in zip(there(place), ("layer 'fc' (InnerProduct)", "fc.1.weight is missing"), strict=True):
        done = back(model, "--net", place / "other.prototxt")
        assert done.exit_code == 1 and said in done.stderr and done.stderr.count("error: ") == 1


def test_tensors_of_other_layers_are_told(place: Path) -> None:
    from safetensors.torch import load_file

    _, stored = there(place)
    torch.save({**load_file(stored), "head.weight": torch.zeros(3)}, place / "m.pt")
    done = back(place / "m.pt", "--net", place / "net.prototxt")
    assert done.exit_code == 0
    assert "note: the file has tensors that the net does not ask for: head.weight" in done.stderr


def test_an_initializer_that_is_gone_or_of_another_size_is_one_error(place: Path) -> None:
    one, _ = there(place)
    model = onnx.load(one)
    named = {array.name: array for array in model.graph.initializer}
    model.graph.initializer.remove(named["c/weight"])
    named["ip/bias"].CopyFrom(numpy_helper.from_array(np.zeros(7, "float32"), "ip/bias"))
    onnx.save(model, one)
    done = back(one)
    assert done.exit_code == 1
    assert "layer 'c' (Convolution): its weight" in done.stderr
    assert "layer 'ip' (InnerProduct): its bias is 7, the net has 5" in done.stderr


def test_weights_show_that_a_batch_norm_is_merged(tmp_path: Path) -> None:
    """Intel's prototxts do not; their two further blobs must not be lost."""
    text = NET.split("\n")[0] + ' layer { name: "n" type: "BatchNorm" bottom: "data" top: "n" }'
    (tmp_path / "net.prototxt").write_text(text)
    rng = np.random.default_rng(0)
    five = [rng.uniform(0.5, 2, size).astype("float32") for size in (3, 3, 1, 3, 3)]
    five[2][:] = 1
    caffemodel.write(tmp_path / "w.caffemodel", [NewLayer("n", "BatchNorm", five, ["data"], ["n"])], "n")
    usual = [tmp_path / "net.prototxt", tmp_path / "w.caffemodel"]
    assert convert("onnx", *usual, "-o", tmp_path / "m.onnx", "--no-verify").exit_code == 0
    for model, *more in ((tmp_path / "m.onnx",), (usual[1], "--net", usual[0])):
        assert back(model, *more).exit_code == 0
        for ours, wanted in zip(blobs(tmp_path / "back.caffemodel")["n"], five, strict=True):
            np.testing.assert_array_equal(ours, wanted)


def test_a_shape_that_the_other_phase_tells_is_carried_along(place: Path) -> None:
    """The net that a model carries is whole, though it was read from two phases."""
    data = 'layer { name: "d" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } }'
    text = NET.replace(NET.split("\n")[0], f"{data} include {{ phase: TRAIN }} }}")
    (place / "net.prototxt").write_text(text)
    for model in there(place):
        assert back(model).exit_code == 0


def test_fields_of_no_schema_are_ignored_as_told(place: Path) -> None:
    net = place / "net.prototxt"
    net.write_text(NET.replace("bias_term: false", "bias_term: false frobnicate: 3"))
    asked = back(place / "w.caffemodel", "--net", net)
    assert asked.exit_code == 1 and "--ignore-field frobnicate" in asked.stderr
    assert back(place / "w.caffemodel", "--net", net, "--ignore-field", "frobnicate").exit_code == 0


def test_normalisation_is_not_rewritten_without_weights(place: Path) -> None:
    done = convert("bn", place / "net.prototxt", "-o", place / "out", "--to", "folded")
    assert done.exit_code == 1 and "give a .caffemodel after it" in done.stderr
