"""Exported models back to a .caffemodel: changed weights arrive, and weights that do not fit are refused."""

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
from prototxt_gen.schema.dialect import find_dialect
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
def folder(tmp_path: Path) -> Path:
    """Return a folder with a net and its weights, which include a scale factor of 1 and a variance of 0."""
    analysis = analyse(parse_net(NET))
    actual = {name: dict(roles) for name, roles in sane_weights(analysis).blobs.items()}
    actual["n"]["factor"] = np.ones(1, "float32")
    actual["n"]["variance"][:2] = 0, 1e-20
    write(tmp_path / "w.caffemodel", analysis, Weights(actual), find_dialect("bvlc"))
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


def export(folder: Path) -> tuple[Path, Path]:
    """Convert to ONNX, without folding, and to PyTorch; return both files."""
    arguments = [folder / "net.prototxt", folder / "w.caffemodel", "--no-verify"]
    for form, name, *more in (("onnx", "m.onnx", "--no-fold"), ("pytorch", "m")):
        assert convert(form, *arguments, "-o", folder / name, *more).exit_code == 0
    return folder / "m.onnx", folder / "m" / "model.safetensors"


def to_caffemodel(model: Path, *more: Any) -> Result:
    return convert("caffemodel", model, "-o", model.parent / "back.caffemodel", "--force", *more)


def test_unchanged_weights_are_equal_to_the_bit(folder: Path) -> None:
    wanted = blobs(folder / "w.caffemodel")
    for model in export(folder):
        assert to_caffemodel(model).exit_code == 0
        actual = blobs(model.parent / "back.caffemodel")
        assert {name: [a.tobytes() for a in each] for name, each in actual.items()} == {
            name: [a.tobytes() for a in each] for name, each in wanted.items()
        }


def test_changed_weights_arrive(folder: Path) -> None:
    from safetensors.torch import load_file

    onnx_file, safetensors_file = export(folder)
    model = onnx.load(onnx_file)
    for held in model.graph.initializer:
        if held.data_type == onnx.TensorProto.FLOAT:
            held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) + 1, held.name))
    onnx.save(model, onnx_file)
    assert to_caffemodel(onnx_file).exit_code == 0
    state = {
        name: tensor + 1 if tensor.is_floating_point() else tensor
        for name, tensor in load_file(safetensors_file).items()
    }
    torch.save({"state_dict": state, "epoch": 3}, folder / "m.pth")
    torch.save({name: tensor.double() for name, tensor in state.items()}, folder / "m.pt")
    wanted = blobs(folder / "w.caffemodel")
    for path in (onnx_file, folder / "m.pt", folder / "m.pth"):
        assert to_caffemodel(path, "--net", folder / "net.prototxt").exit_code == 0
        for name, each in blobs(folder / "back.caffemodel").items():
            for index, array in enumerate(each):
                same = wanted[name][index] + (0 if (name, index) == ("n", 2) else 1)  # the factor
                np.testing.assert_array_equal(array, same, f"{path.suffix} {name} {index}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c.bias": torch.zeros(4)}, "c.bias is superfluous: the net's layer has no such tensor"),
        ({"c.weight": torch.zeros(4, 3, 5, 5)}, "c.weight is (4, 3, 5, 5), the net has (4, 3, 3, 3)"),
        ({"c.weight": None}, "not a state_dict of real numbers: it holds 'c.weight': NoneType"),
        ({"c.weight": torch.zeros(4, 3, 3, 3, dtype=torch.complex64)}, "'c.weight': torch.complex64"),
        ({"c.weight": [1, 2]}, "'c.weight': list"),
        ({"c.weight": torch.zeros(4, 3, 3, 3).to_sparse()}, "'c.weight': torch.sparse_coo"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_one_error(change: dict[str, Any], message: str, folder: Path) -> None:
    from safetensors.torch import load_file

    _, safetensors_file = export(folder)
    torch.save({**load_file(safetensors_file), **change}, folder / "m.pt")
    result = to_caffemodel(folder / "m.pt", "--net", folder / "net.prototxt")
    assert result.exit_code == 1 and message in result.stderr and result.stderr.startswith("error: ")
    assert not (folder / "back.caffemodel").exists()


class Hostile:
    """An object that writes a file when pickle loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(zipped: bool, folder: Path) -> None:
    torch.save({"c.weight": Hostile(folder / "ran")}, folder / "m.pt", _use_new_zipfile_serialization=zipped)
    result = to_caffemodel(folder / "m.pt", "--net", folder / "net.prototxt")
    assert result.exit_code == 1 and not (folder / "ran").exists()
    assert "system" in result.stderr and "weights_only" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_an_archive_that_unpacks_to_much_more_is_refused(member: str, folder: Path) -> None:
    torch.save({"c.weight": torch.zeros(2)}, folder / "m.pt")
    with zipfile.ZipFile(folder / "m.pt") as sound, zipfile.ZipFile(folder / "b.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in sound.namelist():
            bomb.writestr(name, b"]" * 10**6 if name.endswith(member) else sound.read(name))
    result = to_caffemodel(folder / "b.pt", "--net", folder / "net.prototxt")
    assert result.exit_code == 1 and "torch writes no such file" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"), [([1], "holds a list, not a state_dict"), (torch.nn.Linear(1, 1), "Unsupported global")]
)
def test_a_file_without_a_state_dict_is_refused(content: object, message: str, folder: Path) -> None:
    torch.save(content, folder / "m.pt")
    result = to_caffemodel(folder / "m.pt", "--net", folder / "net.prototxt")
    assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1


def test_a_missing_file_of_external_data_is_reported(folder: Path) -> None:
    onnx_file, _ = export(folder)
    onnx.save(onnx.load(onnx_file), folder / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    assert to_caffemodel(folder / "e.onnx").exit_code == 0
    (folder / "e.data").unlink()
    result = to_caffemodel(folder / "e.onnx")
    assert result.exit_code == 1 and "e.data" in result.stderr


def test_weights_of_another_net_are_refused_with_one_error(folder: Path) -> None:
    (folder / "other.prototxt").write_text(NET.replace('name: "ip" type', 'name: "fc" type'))
    for model, message in zip(export(folder), ("layer 'fc' (InnerProduct)", "fc.1.weight is missing"), strict=True):
        result = to_caffemodel(model, "--net", folder / "other.prototxt")
        assert result.exit_code == 1 and message in result.stderr and result.stderr.count("error: ") == 1


def test_tensors_of_other_layers_are_reported(folder: Path) -> None:
    from safetensors.torch import load_file

    _, safetensors_file = export(folder)
    torch.save({**load_file(safetensors_file), "head.weight": torch.zeros(3)}, folder / "m.pt")
    result = to_caffemodel(folder / "m.pt", "--net", folder / "net.prototxt")
    assert result.exit_code == 0
    assert "note: the file has tensors that the net does not use: head.weight" in result.stderr


def test_a_missing_initializer_and_one_of_another_size_are_one_error(folder: Path) -> None:
    onnx_file, _ = export(folder)
    model = onnx.load(onnx_file)
    named = {array.name: array for array in model.graph.initializer}
    model.graph.initializer.remove(named["c/weight"])
    named["ip/bias"].CopyFrom(numpy_helper.from_array(np.zeros(7, "float32"), "ip/bias"))
    onnx.save(model, onnx_file)
    result = to_caffemodel(onnx_file)
    assert result.exit_code == 1
    assert "layer 'c' (Convolution): its weight" in result.stderr
    assert "layer 'ip' (InnerProduct): its bias is 7, the net has 5" in result.stderr


def test_a_merged_batch_norm_is_detected_from_its_weights(tmp_path: Path) -> None:
    """Prototxts of Intel's fork do not show it; the two further blobs of the layer must be kept."""
    text = NET.split("\n")[0] + ' layer { name: "n" type: "BatchNorm" bottom: "data" top: "n" }'
    (tmp_path / "net.prototxt").write_text(text)
    rng = np.random.default_rng(0)
    five = [rng.uniform(0.5, 2, size).astype("float32") for size in (3, 3, 1, 3, 3)]
    five[2][:] = 1
    caffemodel.write(tmp_path / "w.caffemodel", [NewLayer("n", "BatchNorm", five, ["data"], ["n"])], "n")
    arguments = [tmp_path / "net.prototxt", tmp_path / "w.caffemodel"]
    assert convert("onnx", *arguments, "-o", tmp_path / "m.onnx", "--no-verify").exit_code == 0
    for model, *more in ((tmp_path / "m.onnx",), (arguments[1], "--net", arguments[0])):
        assert to_caffemodel(model, *more).exit_code == 0
        for ours, wanted in zip(blobs(tmp_path / "back.caffemodel")["n"], five, strict=True):
            np.testing.assert_array_equal(ours, wanted)


def test_a_shape_from_the_other_phase_is_stored_in_the_export(folder: Path) -> None:
    """The net stored in a model is complete, although it was read from two phases."""
    data = 'layer { name: "d" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } }'
    text = NET.replace(NET.split("\n")[0], f"{data} include {{ phase: TRAIN }} }}")
    (folder / "net.prototxt").write_text(text)
    for model in export(folder):
        assert to_caffemodel(model).exit_code == 0


def test_unknown_fields_can_be_ignored(folder: Path) -> None:
    net = folder / "net.prototxt"
    net.write_text(NET.replace("bias_term: false", "bias_term: false frobnicate: 3"))
    refused = to_caffemodel(folder / "w.caffemodel", "--net", net)
    assert refused.exit_code == 1 and "--ignore-field frobnicate" in refused.stderr
    assert to_caffemodel(folder / "w.caffemodel", "--net", net, "--ignore-field", "frobnicate").exit_code == 0


def test_convert_bn_without_weights_is_refused(folder: Path) -> None:
    result = convert("bn", folder / "net.prototxt", "-o", folder / "out", "--to", "folded")
    assert result.exit_code == 1 and "give a .caffemodel after it" in result.stderr
