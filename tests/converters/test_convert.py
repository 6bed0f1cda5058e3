"""Converting files to ONNX and PyTorch: names, metadata, dynamic axes, and nets that are refused."""

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

from converters import read_net_with_weights, to_onnx, to_torch
from converters.common.net_with_weights import NetWithWeights
from converters.onnx_export.net_to_onnx import lower_to_onnx
from converters.onnx_export.onnx_writer import save_onnx
from converters.pytorch_export.output_files import load_folder, load_pt2, run_module
from converters.verification.blob_comparison import difference
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.runtimes import open_onnx_session, run_onnx_file, run_torch
from converters.write_models import write_onnx, write_torch
from prototxt_gen import analyse, build, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import NetError, PrototxtGenError, UnsupportedError
from prototxt_gen.net.render import net_text
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import write
from tests.support.sane_weights import sane_weights

pytestmark = pytest.mark.slow

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


def model_of(text: str = NET) -> NetWithWeights:
    net = parse_net(text, "net.prototxt")
    return read_net_with_weights(net, sane_weights(analyse(net.at("TEST"))))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_files(tmp_path, NET)


def write_files(folder: Path, text: str) -> tuple[Path, Path]:
    net = parse_net(text, "net.prototxt")
    analysis = analyse(net.at("TEST"))
    prototxt, model = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(net_text(net))
    write(model, analysis, sane_weights(analysis), find_dialect("prototxt-gen"))
    return prototxt, model


def test_onnx_has_the_names_of_caffe_and_a_dynamic_batch(files: tuple[Path, Path], tmp_path: Path) -> None:
    to_onnx(*files, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [value.name for value in graph.input] == ["data"]
    assert [value.name for value in graph.output] == ["prob"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)
    model = read_net_with_weights(*files)
    three = np.concatenate([seeded_inputs(model, seed)["data"] for seed in range(3)])
    together = run_onnx_file(tmp_path / "m.onnx", {"data": three})["prob"]
    for index in range(3):
        alone = run_torch(model, {"data": three[index : index + 1]})["prob"]
        assert difference(alone, together[index : index + 1])[0] < 1e-5


@pytest.mark.parametrize("opset", range(18, 24))
def test_every_opset_runs(opset: int, tmp_path: Path) -> None:
    model = model_of()
    write_onnx(model, tmp_path / "m.onnx", opset=opset)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset


def test_an_unsupported_opset_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="opset 12"):
        lower_to_onnx(model_of().analysis, model_of().weights, opset=12)


def test_without_folding_batch_normalisation_is_kept(tmp_path: Path) -> None:
    write_onnx(model_of(), tmp_path / "m.onnx", fold_bn=False)
    kinds = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert "BatchNormalization" in kinds


def test_a_dynamic_image_size_is_right_at_other_sizes(tmp_path: Path) -> None:
    text = NET.split('layer { name: "ip"')[0]
    model = model_of(text)
    write_onnx(model, tmp_path / "m.onnx", dynamic_size=True)
    larger = np.random.default_rng(0).normal(size=(2, 3, 16, 22)).astype("float32")
    larger_model = read_net_with_weights(model.net, model.weights, shapes={"data": larger.shape})
    wanted = run_torch(larger_model, {"data": larger})["pool"]
    assert difference(wanted, run_onnx_file(tmp_path / "m.onnx", {"data": larger})["pool"])[0] < 1e-5


def test_an_image_size_that_the_net_depends_on_cannot_be_dynamic() -> None:
    with pytest.raises(PrototxtGenError, match="cannot be left open"):
        lower_to_onnx(model_of().analysis, model_of().weights, dynamic_size=True)


def test_a_batch_that_the_net_fixes_is_reported(tmp_path: Path) -> None:
    text = NET.replace(
        'layer { name: "ip"',
        'layer { name: "r" type: "Reshape" bottom: "pool" top: "r" reshape_param '
        '{ shape { dim: 1 dim: -1 } } }\nlayer { name: "ip"',
    ).replace('bottom: "pool" top: "ip"', 'bottom: "r" top: "ip"')
    result = write_onnx(model_of(text), tmp_path / "m.onnx")
    dim = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert dim.dim_value == 1 and any("batch is fixed" in remark for remark in result.remarks)


def test_large_weights_go_to_a_second_file(tmp_path: Path) -> None:
    model = model_of()
    net = lower_to_onnx(model.analysis, model.weights)
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    assert save_onnx(net, small) == [small]
    assert save_onnx(net, large, limit=16) == [large, tmp_path / "large.onnx.data"]
    onnx.checker.check_model(str(large))
    inputs = seeded_inputs(model)
    a, b = (run_onnx_file(path, inputs)["prob"] for path in (small, large))
    np.testing.assert_array_equal(a, b)


def test_a_train_val_net_is_converted_as_its_deploy_net(tmp_path: Path) -> None:
    result = write_onnx(model_of(TRAIN_VAL), tmp_path / "m.onnx")
    session = open_onnx_session(tmp_path / "m.onnx")
    assert [value.name for value in session.get_inputs()] == ["data"]
    assert [value.name for value in session.get_outputs()] == ["prob"]
    assert any("SoftmaxWithLoss" in remark for remark in result.remarks)


def test_a_plain_layer_with_a_loss_weight_stays_without_a_remark() -> None:
    model = model_of(NET.replace('top: "ip" inner', 'top: "ip" loss_weight: 1 inner'))
    assert [layer.name for layer in model.net.layers][-2:] == ["ip", "prob"]
    assert not any("left out" in remark for remark in model.remarks)


def test_a_python_loss_is_left_out_and_its_head_is_an_output() -> None:
    loss = """layer { name: "dice" type: "Python" bottom: "ip" bottom: "label" top: "dice"
      python_param { module: "losses" layer: "DiceLossLayer" } loss_weight: 1 }"""
    body = TRAIN_VAL[: TRAIN_VAL.index('layer { name: "accuracy"')]
    model = read_net_with_weights(parse_net(body + loss), sane_weights(analyse(parse_net(TRAIN_VAL).at("TEST"))))
    assert [value.blob for value in model.net.outputs] == ["ip"]
    assert any("left out: 'dice' (Python)" in remark for remark in model.remarks)


def test_an_auxiliary_head_is_named_in_the_remarks() -> None:
    aux = """layer { name: "aux" type: "InnerProduct" bottom: "data" top: "aux" inner_product_param { num_output: 5 } }
    layer { name: "aux_loss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" top: "aux_loss" loss_weight: 0.3 }"""
    model = model_of(TRAIN_VAL + aux)
    assert [value.blob for value in model.net.outputs] == ["prob"]
    assert any("auxiliary head 'aux_loss'" in remark for remark in model.remarks)


def test_preprocessing_is_stored_as_metadata(tmp_path: Path) -> None:
    model = model_of(TRAIN_VAL)
    write_onnx(model, tmp_path / "m.onnx")
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    stored = json.loads(props["preprocessing"])
    assert stored["mean"] == [104, 117, 123] and stored["scale"] == 0.5
    write_torch(model, tmp_path / "folder")
    text = (tmp_path / "folder" / "model.py").read_text()
    assert "MEAN = (104.0, 117.0, 123.0)" in text and "SCALE = 0.5" in text


def test_a_data_layer_of_the_train_phase_is_used_if_test_has_none(tmp_path: Path) -> None:
    text = TRAIN_VAL.replace(
        "include { phase: TEST }\n  transform_param", 'include { phase: TRAIN stage: "x" } transform_param'
    )
    model = read_net_with_weights(parse_net(text), sane_weights(analyse(parse_net(TRAIN_VAL).at("TEST"))))
    assert any("of the other phase" in remark for remark in model.remarks)


def test_no_file_is_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(PrototxtGenError, match="--force"):
        write_onnx(model_of(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"
    write_onnx(model_of(), tmp_path / "m.onnx", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_wrong_conversion_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prototxt_gen import layers

    layer_type = layers.all_layer_types()["Softmax"]
    monkeypatch.setattr(type(layer_type), "onnx", lambda self, g, layer, bottoms, blobs: g.op("Sigmoid", bottoms[0]))
    with pytest.raises(PrototxtGenError, match="layer 'prob'"):
        write_onnx(model_of(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    write_onnx(model_of(), tmp_path / "m.onnx", verify_output=False)
    assert (tmp_path / "m.onnx").exists()


def test_every_refused_layer_is_listed() -> None:
    text = NET.replace('type: "ReLU"', 'type: "Relu"').replace('type: "Softmax"', 'type: "Sofmax"')
    with pytest.raises(NetError) as caught:
        read_net_with_weights(parse_net(text, "net.prototxt"), sane_weights(analyse(parse_net(NET).at("TEST"))))
    assert "'stem/relu' (Relu)" in str(caught.value) and "'prob' (Sofmax)" in str(caught.value)


def test_the_folder_does_not_import_prototxt_gen(files: tuple[Path, Path], tmp_path: Path) -> None:
    to_torch(*files, tmp_path / "exported")
    model = read_net_with_weights(*files)
    inputs = seeded_inputs(model)
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
    paths = (tmp_path / "exported", tmp_path / "x.npy", tmp_path / "y.npy")
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True, cwd=tmp_path, capture_output=True)
    assert difference(run_torch(model, inputs)["prob"], np.load(tmp_path / "y.npy"))[0] < 1e-6


def test_the_folder_has_classes_named_after_the_layers(tmp_path: Path) -> None:
    write_torch(model_of(), tmp_path / "exported")
    text = (tmp_path / "exported" / "model.py").read_text()
    for line in ("class Stem(nn.Module):", "self.conv = nn.Conv2d(3, 4, 3, padding=1)", "self.stem = Stem()"):
        assert line in text
    module: Any = load_folder(tmp_path / "exported")
    assert isinstance(module.stem.conv, torch.nn.Conv2d) and isinstance(module.stem.bn, torch.nn.BatchNorm2d)


def test_the_folder_takes_any_batch_and_refuses_other_sizes(tmp_path: Path) -> None:
    model = model_of()
    write_torch(model, tmp_path / "exported")
    module = load_folder(tmp_path / "exported")
    three = np.concatenate([seeded_inputs(model, seed)["data"] for seed in range(3)])
    together = run_module(model, module, {"data": three})["prob"]
    alone = run_torch(model, {"data": three[1:2]})["prob"]
    assert difference(alone, together[1:2])[0] < 1e-6
    with pytest.raises(ValueError, match="this net takes"):
        module(torch.zeros(1, 3, 16, 16))


def test_pt2_takes_any_batch(tmp_path: Path) -> None:
    model = model_of()
    write_torch(model, tmp_path / "m.pt2", "pt2")
    three = np.concatenate([seeded_inputs(model, seed)["data"] for seed in range(3)])
    together = run_module(model, load_pt2(tmp_path / "m.pt2"), {"data": three})["prob"]
    assert difference(run_torch(model, {"data": three})["prob"], together)[0] < 1e-6


@pytest.mark.parametrize("name", ["attention-56-cifar", "attention-92-cifar"])
def test_deep_nets_as_folder(name: str, tmp_path: Path) -> None:
    net = build(name)
    model = read_net_with_weights(net, sane_weights(analyse(net)))
    write_torch(model, tmp_path / "exported")
    inputs = seeded_inputs(model)
    output = model.net.outputs[-1].blob
    assert "class AttentionA(nn.Module):" in (tmp_path / "exported" / "model.py").read_text(), "one module, one class"
    outputs = run_module(model, load_folder(tmp_path / "exported"), inputs)
    assert difference(run_torch(model, inputs)[output], outputs[output])[0] < 1e-6


def test_the_convert_commands(files: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = [str(path) for path in files]
    for kind, out in (("onnx", "m.onnx"), ("pytorch", "exported")):
        result = CliRunner().invoke(cli, ["convert", kind, *arguments, "-o", str(tmp_path / out), "--mean", "1,2,3"])
        assert result.exit_code == 0, result.output
        assert str(tmp_path / out) in result.stdout and "verified:" in result.stderr
    again = CliRunner().invoke(cli, ["convert", "onnx", *arguments, "-o", str(tmp_path / "m.onnx")])
    assert again.exit_code == 1 and "--force" in again.stderr


def test_a_layer_type_of_a_plugin_is_converted(tmp_path: Path) -> None:
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
    prototxt, model = write_files(tmp_path, NET)
    prototxt.write_text(text)
    arguments = ["convert", "onnx", str(prototxt), str(model), "-o", str(tmp_path / "m.onnx"), "--plugin", str(plugin)]
    code = "import sys; from prototxt_gen.cli import main; main()"
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "m.onnx").exists()


def test_only_a_net_with_learned_blobs_needs_weights(files: tuple[Path, Path], tmp_path: Path) -> None:
    prototxt = tmp_path / "bare.prototxt"
    prototxt.write_text(
        'input: "data" input_shape { dim: 1 dim: 6 dim: 7 dim: 7 }'
        'layer { name: "lrn" type: "LRN" bottom: "data" top: "out" lrn_param { local_size: 3 k: 2 } }'
    )
    result = CliRunner().invoke(cli, ["convert", "onnx", str(prototxt)])
    assert result.exit_code == 0, result.output
    assert prototxt.with_suffix(".onnx").is_file()
    refused = CliRunner().invoke(cli, ["convert", "pytorch", str(files[0])])
    assert refused.exit_code == 1
    assert "it needs weights, for layer 'stem/conv' (Convolution) and 3 more layers" in str(refused.stderr)


def test_a_net_with_losses_only_is_refused(tmp_path: Path) -> None:
    text = 'input: "a" input_shape { dim: 2 dim: 3 } input: "b" input_shape { dim: 2 dim: 3 }\n'
    (tmp_path / "net.prototxt").write_text(
        text + 'layer { name: "gap" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "gap" }'
    )
    with pytest.raises(NetError, match=r"nothing is left that computes an output: .*'gap' \(EuclideanLoss\)"):
        read_net_with_weights(tmp_path / "net.prototxt", None)


def test_a_net_without_layers_in_its_phase_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(
        'input: "a" input_shape { dim: 2 dim: 3 }\n'
        'layer { name: "r" type: "ReLU" bottom: "a" top: "r" include { min_level: 1 } }'
    )
    with pytest.raises(NetError, match=r"net\.prototxt: no layer computes an output$"):
        read_net_with_weights(file, None)
    assert read_net_with_weights(file, None, level=1).analysis.net.layers
