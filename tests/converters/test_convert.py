"""Conversions from files to files: ONNX and PyTorch, what they carry along, what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from converters import read_subject, to_onnx, to_torch
from converters.onnx_export.net_to_onnx import lower
from converters.onnx_export.onnx_writer import save
from converters.pytorch_export.output_files import load_folder, load_pt2, run_module
from converters.verification.blob_comparison import difference
from converters.verification.comparison_inputs import seeded
from converters.verification.runtimes import onnx_session, run_onnx_file, run_torch
from converters.write_models import write_onnx, write_torch
from prototxt_gen import analyse, build, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import NetError, PrototxtGenError, UnsupportedError
from prototxt_gen.net.render import net_text
from prototxt_gen.schema.dialect import dialect
from prototxt_gen.weights import write
from tests.support.sane_weights import sane_weights

NET = """name: "nested"
input: "data" input_shape { dim: 1 dim: 3 dim: 12 dim: 12 }
layer { name: "stem/conv" type: "Convolution" bottom: "data" top: "stem/conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "stem/bn" type: "BatchNorm" bottom: "stem/conv" top: "stem/conv" }
layer { name: "stem/scale" type: "Scale" bottom: "stem/conv" top: "stem/conv" scale_param { bias_term: true } }
layer { name: "stem/relu" type: "ReLU" bottom: "stem/conv" top: "stem/conv" }
layer { name: "pool" type: "Pooling" bottom: "stem/conv" top: "pool"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
TRAIN_VAL = """name: "trained"
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 8 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 }
  data_param { source: "train" batch_size: 9 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 8 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 }
  data_param { source: "test" batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def subject(text: str = NET, **reading: Any) -> Any:
    net = parse_net(text, "net.prototxt")
    return read_subject(net, sane_weights(analyse(net.at("TEST"))), **reading)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path, NET)


def written(folder: Path, text: str) -> tuple[Path, Path]:
    net = parse_net(text, "net.prototxt")
    analysis = analyse(net.at("TEST"))
    prototxt, model = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(net_text(net))
    write(model, analysis, sane_weights(analysis), dialect("prototxt-gen"))
    return prototxt, model


def test_onnx_has_names_metadata_and_an_open_batch(files: tuple[Path, Path], tmp_path: Path) -> None:
    to_onnx(*files, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert [value.name for value in model.graph.input] == ["data"]
    assert [value.name for value in model.graph.output] == ["prob"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    one = read_subject(*files)
    three = np.concatenate([seeded(one, seed)["data"] for seed in range(3)])
    together = run_onnx_file(tmp_path / "m.onnx", {"data": three})["prob"]
    for index in range(3):
        alone = run_torch(one, {"data": three[index : index + 1]})["prob"]
        assert difference(alone, together[index : index + 1])[0] < 1e-5


@pytest.mark.parametrize("opset", range(18, 24))
def test_every_opset_runs(opset: int, tmp_path: Path) -> None:
    one = subject()
    write_onnx(one, tmp_path / "m.onnx", opset=opset)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset


def test_an_opset_there_is_not_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="opset 12"):
        lower(subject().analysis, subject().weights, opset=12)


def test_unfolded_keeps_every_blob(tmp_path: Path) -> None:
    write_onnx(subject(), tmp_path / "m.onnx", fold_bn=False)
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert "BatchNormalization" in kinds


def test_an_open_size_is_right_at_other_sizes(tmp_path: Path) -> None:
    text = NET.split('layer { name: "ip"')[0]
    one = subject(text)
    write_onnx(one, tmp_path / "m.onnx", dynamic_size=True)
    larger = np.random.default_rng(0).normal(size=(2, 3, 16, 22)).astype("float32")
    wanted = run_torch(read_subject(one.net, one.weights, shapes={"data": larger.shape}), {"data": larger})["pool"]
    assert difference(wanted, run_onnx_file(tmp_path / "m.onnx", {"data": larger})["pool"])[0] < 1e-5


def test_a_size_the_net_goes_by_cannot_be_open() -> None:
    with pytest.raises(PrototxtGenError, match="cannot be left open"):
        lower(subject().analysis, subject().weights, dynamic_size=True)


def test_a_fixed_batch_stays_fixed_and_is_told(tmp_path: Path) -> None:
    text = NET.replace(
        'layer { name: "ip"',
        'layer { name: "r" type: "Reshape" bottom: "pool" top: "r" reshape_param '
        '{ shape { dim: 1 dim: -1 } } }\nlayer { name: "ip"',
    ).replace('bottom: "pool" top: "ip"', 'bottom: "r" top: "ip"')
    done = write_onnx(subject(text), tmp_path / "m.onnx")
    dim = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert dim.dim_value == 1 and any("batch is fixed" in remark for remark in done.remarks)


def test_large_weights_go_to_a_file_beside(tmp_path: Path) -> None:
    one = subject()
    net = lower(one.analysis, one.weights)
    small, beside = tmp_path / "small.onnx", tmp_path / "large.onnx"
    assert save(net, small) == [small]
    assert save(net, beside, limit=16) == [beside, tmp_path / "large.onnx.data"]
    onnx.checker.check_model(str(beside))
    inputs = seeded(one)
    a, b = (run_onnx_file(path, inputs)["prob"] for path in (small, beside))
    np.testing.assert_array_equal(a, b)


def test_a_train_val_becomes_what_is_deployed(tmp_path: Path) -> None:
    done = write_onnx(subject(TRAIN_VAL), tmp_path / "m.onnx")
    session = onnx_session(tmp_path / "m.onnx")
    assert [value.name for value in session.get_inputs()] == ["data"]
    assert [value.name for value in session.get_outputs()] == ["prob"]
    assert any("SoftmaxWithLoss" in remark for remark in done.remarks)


def test_preprocessing_is_carried_along(tmp_path: Path) -> None:
    one = subject(TRAIN_VAL)
    write_onnx(one, tmp_path / "m.onnx")
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    told = json.loads(props["preprocessing"])
    assert told["mean"] == [104, 117, 123] and told["scale"] == 0.5
    write_torch(one, tmp_path / "folder")
    text = (tmp_path / "folder" / "model.py").read_text()
    assert "MEAN = (104.0, 117.0, 123.0)" in text and "SCALE = 0.5" in text


def test_a_blob_only_training_makes_is_lent(tmp_path: Path) -> None:
    text = TRAIN_VAL.replace(
        "include { phase: TEST }\n  transform_param", 'include { phase: TRAIN stage: "x" } transform_param'
    )
    one = read_subject(parse_net(text), sane_weights(analyse(parse_net(TRAIN_VAL).at("TEST"))))
    assert any("of the other phase" in remark for remark in one.remarks)


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(PrototxtGenError, match="--force"):
        write_onnx(subject(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"
    write_onnx(subject(), tmp_path / "m.onnx", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_wrong_conversion_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prototxt_gen import layers

    layer_type = layers.all_layer_types()["Softmax"]
    monkeypatch.setattr(type(layer_type), "onnx", lambda self, g, layer, bottoms, blobs: g.op("Sigmoid", bottoms[0]))
    with pytest.raises(PrototxtGenError, match="layer 'prob'"):
        write_onnx(subject(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    write_onnx(subject(), tmp_path / "m.onnx", verified=False)
    assert (tmp_path / "m.onnx").exists()


def test_every_refused_layer_is_listed() -> None:
    text = NET.replace('type: "ReLU"', 'type: "Relu"').replace('type: "Softmax"', 'type: "Sofmax"')
    with pytest.raises(NetError) as caught:
        read_subject(parse_net(text, "net.prototxt"), sane_weights(analyse(parse_net(NET).at("TEST"))))
    assert "'stem/relu' (Relu)" in str(caught.value) and "'prob' (Sofmax)" in str(caught.value)


def test_the_folder_needs_nothing_of_ours(files: tuple[Path, Path], tmp_path: Path) -> None:
    to_torch(*files, tmp_path / "made")
    one = read_subject(*files)
    inputs = seeded(one)
    np.save(tmp_path / "x.npy", inputs["data"])
    code = (
        "import sys, numpy as np, torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import model\n"
        "net = model.load()\n"
        "out = net(torch.from_numpy(np.load(sys.argv[2])))\n"
        "np.save(sys.argv[3], out.detach().numpy())\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('prototxt_gen', 'converters')]\n"
    )
    paths = (tmp_path / "made", tmp_path / "x.npy", tmp_path / "y.npy")
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True, cwd=tmp_path, capture_output=True)
    assert difference(run_torch(one, inputs)["prob"], np.load(tmp_path / "y.npy"))[0] < 1e-6


def test_the_folder_reads_as_the_net_is_named(tmp_path: Path) -> None:
    write_torch(subject(), tmp_path / "made")
    text = (tmp_path / "made" / "model.py").read_text()
    for line in ("class Stem(nn.Module):", "self.conv = nn.Conv2d(3, 4, 3, padding=1)", "self.stem = Stem()"):
        assert line in text
    made: Any = load_folder(tmp_path / "made")
    assert isinstance(made.stem.conv, torch.nn.Conv2d) and isinstance(made.stem.bn, torch.nn.BatchNorm2d)


def test_the_folder_takes_any_batch_and_refuses_other_sizes(tmp_path: Path) -> None:
    one = subject()
    write_torch(one, tmp_path / "made")
    made = load_folder(tmp_path / "made")
    three = np.concatenate([seeded(one, seed)["data"] for seed in range(3)])
    together = run_module(one, made, {"data": three})["prob"]
    alone = run_torch(one, {"data": three[1:2]})["prob"]
    assert difference(alone, together[1:2])[0] < 1e-6
    with pytest.raises(ValueError, match="this net takes"):
        made(torch.zeros(1, 3, 16, 16))


def test_pt2_takes_any_batch(tmp_path: Path) -> None:
    one = subject()
    write_torch(one, tmp_path / "m.pt2", "pt2")
    three = np.concatenate([seeded(one, seed)["data"] for seed in range(3)])
    together = run_module(one, load_pt2(tmp_path / "m.pt2"), {"data": three})["prob"]
    assert difference(run_torch(one, {"data": three})["prob"], together)[0] < 1e-6


@pytest.mark.parametrize("name", ["attention-56-cifar", "attention-92-cifar"])
def test_deep_nets_as_folder(name: str, tmp_path: Path) -> None:
    net = build(name)
    one = read_subject(net, sane_weights(analyse(net)))
    write_torch(one, tmp_path / "made")
    inputs = seeded(one)
    output = one.net.outputs[-1].blob
    assert "class AttentionA(nn.Module):" in (tmp_path / "made" / "model.py").read_text(), "one module, one class"
    made = run_module(one, load_folder(tmp_path / "made"), inputs)
    assert difference(run_torch(one, inputs)[output], made[output])[0] < 1e-6


def test_commands(files: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = [str(path) for path in files]
    for kind, out in (("onnx", "m.onnx"), ("pytorch", "made")):
        made = CliRunner().invoke(cli, ["convert", kind, *arguments, "-o", str(tmp_path / out), "--mean", "1,2,3"])
        assert made.exit_code == 0, made.output
        assert str(tmp_path / out) in made.stdout and "verified:" in made.stderr
    again = CliRunner().invoke(cli, ["convert", "onnx", *arguments, "-o", str(tmp_path / "m.onnx")])
    assert again.exit_code == 1 and "--force" in again.stderr


def test_a_plugin_adds_a_layer(tmp_path: Path) -> None:
    plugin = tmp_path / "my_layers.py"
    plugin.write_text(
        "from prototxt_gen.layers.base import LayerType\n"
        "class Doubled(LayerType):\n"
        "    type = 'DoubledForTests'\n"
        "    def shapes(self, layer, bottoms):\n"
        "        return [bottoms[0]]\n"
        "    def torch(self, layer, bottoms):\n"
        "        from torch import nn\n"
        "        class Double(nn.Module):\n"
        "            def forward(self, x):\n"
        "                return x * 2\n"
        "        return Double()\n"
        "    def onnx(self, g, layer, bottoms, blobs):\n"
        "        return g.op('Add', bottoms[0], bottoms[0])\n"
    )
    text = NET + 'layer { name: "d" type: "DoubledForTests" bottom: "prob" top: "d" }\n'
    prototxt, model = written(tmp_path, NET)
    prototxt.write_text(text)
    arguments = ["convert", "onnx", str(prototxt), str(model), "-o", str(tmp_path / "m.onnx"), "--plugin", str(plugin)]
    code = "import sys; from prototxt_gen.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.onnx").exists()


def test_only_a_net_that_learns_needs_weights(files: tuple[Path, Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare.prototxt"
    bare.write_text(
        'input: "data" input_shape { dim: 1 dim: 6 dim: 7 dim: 7 }'
        'layer { name: "lrn" type: "LRN" bottom: "data" top: "out" lrn_param { local_size: 3 k: 2 } }'
    )
    made = CliRunner().invoke(cli, ["convert", "onnx", str(bare)])
    assert made.exit_code == 0, made.output
    assert bare.with_suffix(".onnx").is_file()
    refused = CliRunner().invoke(cli, ["convert", "pytorch", str(files[0])])
    assert refused.exit_code == 1
    assert "it needs weights, for layer 'stem/conv' (Convolution) and 3 more layers" in str(refused.stderr)


def test_a_net_of_nothing_but_losses_is_refused(tmp_path: Path) -> None:
    text = 'input: "a" input_shape { dim: 2 dim: 3 } input: "b" input_shape { dim: 2 dim: 3 }\n'
    (tmp_path / "net.prototxt").write_text(
        text + 'layer { name: "gap" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "gap" }'
    )
    with pytest.raises(NetError, match=r"nothing is left that computes an output: .*'gap' \(EuclideanLoss\)"):
        read_subject(tmp_path / "net.prototxt", None)


def test_a_net_whose_rules_leave_no_layer_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(
        'input: "a" input_shape { dim: 2 dim: 3 }\n'
        'layer { name: "r" type: "ReLU" bottom: "a" top: "r" include { min_level: 1 } }'
    )
    with pytest.raises(NetError, match=r"net\.prototxt: no layer computes an output$"):
        read_subject(file, None)
    assert read_subject(file, None, level=1).analysis.net.layers


def test_a_blob_without_a_name_has_no_onnx_form(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text('input: "a" input_shape { dim: 2 dim: 3 } layer { name: "r" type: "ReLU" bottom: "a" top: "" }')
    with pytest.raises(UnsupportedError, match=r"net\.prototxt: a blob's name is empty, which in ONNX stands for no"):
        to_onnx(file, None)
