"""Rewriting batch normalisation, writing it for every fork, and getting a .caffemodel back from exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_net_with_weights
from converters.verification.blob_comparison import difference
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.runtimes import run_torch
from converters.verification.verify import verify
from converters.write_models import write_onnx, write_torch
from prototxt_gen import analyse, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.net.render import net_text
from prototxt_gen.passes.bn_merge import merge_batch_norms
from prototxt_gen.passes.bn_split import split_batch_norms
from prototxt_gen.schema.dialect import DIALECTS, find_dialect
from prototxt_gen.weights import as_inverse_std, as_variance, write
from tests.support.caffe_support import caffe_or_skip
from tests.support.sane_weights import sane_weights

HEAD = """name: "normalised"
input: "data" input_shape { dim: 2 dim: 3 dim: 6 dim: 6 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
"""
TAIL = 'layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5 } }\n'
MERGED = (
    HEAD + 'layer { name: "bn" type: "BN" bottom: "conv" top: "conv" bn_param { eps: 0.001 frozen: true } }\n' + TAIL
)
PAIR = (
    HEAD
    + 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { eps: 0.001 } }\n'
    + 'layer { name: "s" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }\n'
    + TAIL
)
FORKS = [name for name, fork in DIALECTS.items() if fork.number("bn_param") is not None]


def write_files(
    folder: Path, text: str, fork: str = "prototxt-gen", statistic: str = "inverse_std"
) -> tuple[Path, Path]:
    net = parse_net(text, "net.prototxt")
    analysis = analyse(net.at("TEST"))
    folder.mkdir(exist_ok=True)
    prototxt, caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(net_text(net))
    convert_statistic = as_variance if statistic == "variance" else as_inverse_std
    write(caffemodel, analysis, convert_statistic(sane_weights(analysis), analysis), find_dialect(fork))
    return prototxt, caffemodel


def convert(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


@pytest.mark.parametrize("text", [MERGED, PAIR], ids=["merged", "pair"])
def test_splitting_and_merging_compute_the_same(text: str) -> None:
    net = parse_net(text, "net.prototxt").at("TEST")
    model = read_net_with_weights(net, sane_weights(analyse(net)))
    inputs = seeded_inputs(model)
    wanted = run_torch(model, inputs)["ip"]
    for change, removed_types in ((split_batch_norms, {"BN"}), (merge_batch_norms, {"BatchNorm", "Scale"})):
        rewritten, weights = change(model.net, model.weights)
        assert not removed_types & {layer.type for layer in rewritten.layers}
        assert difference(wanted, run_torch(read_net_with_weights(rewritten, weights), inputs)["ip"])[0] < 1e-5


def test_scale_is_merged_only_if_nothing_else_uses_the_normalised_blob() -> None:
    text = (
        PAIR.replace('top: "conv" batch_norm_param', 'top: "n" batch_norm_param')
        .replace('bottom: "conv" top: "conv" scale_param', 'bottom: "n" top: "s" scale_param')
        .replace(TAIL, 'layer { name: "e" type: "Eltwise" bottom: "n" bottom: "s" top: "e" }\n')
    )
    net = parse_net(text, "net.prototxt").at("TEST")
    model = read_net_with_weights(net, sane_weights(analyse(net)))
    rewritten, weights = merge_batch_norms(model.net, model.weights)
    assert [layer.type for layer in rewritten.layers] == ["Convolution", "BN", "Scale", "Eltwise"]
    inputs = seeded_inputs(model)
    wanted, actual = (run_torch(each, inputs)["e"] for each in (model, read_net_with_weights(rewritten, weights)))
    assert difference(wanted, actual)[0] < 1e-5


def test_splitting_keeps_an_inverse_std_that_no_variance_gives() -> None:
    net = parse_net(MERGED, "net.prototxt").at("TEST")
    weights = sane_weights(analyse(net))
    blobs = {name: dict(roles) for name, roles in weights.blobs.items()}
    blobs["bn"]["inverse_std"] = np.full_like(blobs["bn"]["inverse_std"], 1000.0)  # above 1/sqrt(eps)
    model = read_net_with_weights(net, replace(weights, blobs=blobs))
    rewritten, rewritten_weights = split_batch_norms(model.net, model.weights)
    inputs = seeded_inputs(model)
    wanted, actual = (
        run_torch(each, inputs)["ip"] for each in (model, read_net_with_weights(rewritten, rewritten_weights))
    )
    assert difference(wanted, actual)[0] < 1e-4


@pytest.mark.parametrize("form", ["merged", "batchnorm-scale", "folded"])
@pytest.mark.parametrize("text", [MERGED, PAIR], ids=["from merged", "from a pair"])
def test_convert_bn_writes_nets_that_compute_the_same(text: str, form: str, tmp_path: Path) -> None:
    prototxt, caffemodel = write_files(tmp_path / "in", text)
    result = convert("bn", prototxt, caffemodel, "-o", tmp_path / "out", "--to", form)
    assert result.exit_code == 0, result.output
    before = read_net_with_weights(prototxt, caffemodel)
    after = read_net_with_weights(*(tmp_path / "out" / file.name for file in (prototxt, caffemodel)))
    inputs = seeded_inputs(before)
    assert difference(run_torch(before, inputs)["ip"], run_torch(after, inputs)["ip"])[0] < 1e-5


@pytest.mark.parametrize("statistic", ["inverse-std", "variance"])
@pytest.mark.parametrize("fork", FORKS)
def test_weights_can_be_written_for_any_fork_with_either_statistic(fork: str, statistic: str, tmp_path: Path) -> None:
    prototxt, caffemodel = write_files(tmp_path / "in", MERGED)
    arguments = ["--to", "merged", "--to-dialect", fork, "--to-statistic", statistic]
    result = convert("bn", prototxt, caffemodel, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    before = read_net_with_weights(prototxt, caffemodel)
    bn_statistic = statistic.replace("-", "_")
    files = (tmp_path / "out" / "net.prototxt", tmp_path / "out" / "net.caffemodel")
    after = read_net_with_weights(*files, bn_statistic=bn_statistic)
    assert bn_statistic in after.weights.of("bn")
    inputs = seeded_inputs(before)
    assert difference(run_torch(before, inputs)["ip"], run_torch(after, inputs)["ip"])[0] < 1e-5


def test_an_unknown_bn_statistic_has_to_be_given(tmp_path: Path) -> None:
    prototxt, caffemodel = write_files(tmp_path / "in", MERGED, "happynear")
    with pytest.raises(PrototxtGenError, match="--bn-statistic"):
        read_net_with_weights(prototxt, caffemodel)
    read_net_with_weights(prototxt, caffemodel, bn_statistic="inverse_std")


@pytest.mark.caffe
@pytest.mark.parametrize("statistic", ["inverse_std", "variance"])
@pytest.mark.parametrize("text", [MERGED, PAIR], ids=["merged", "pair"])
def test_real_caffe_computes_the_same(text: str, statistic: str, tmp_path: Path) -> None:
    caffe_or_skip()
    files = write_files(tmp_path / "in", text, "prototxt-gen", statistic)
    model = read_net_with_weights(*files, bn_statistic=statistic)
    report = verify(model, seeded_inputs(model), ("pycaffe", "torch", "onnx"))
    assert report.reference == "pycaffe" and report.verified and report.worst < 1e-5


@pytest.mark.parametrize("text", [MERGED, PAIR], ids=["merged", "pair"])
@pytest.mark.parametrize("kind", ["folder", "safetensors", "state_dict", "onnx", "onnx folded"])
def test_an_export_is_converted_back_to_a_caffemodel(kind: str, text: str, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", text)
    model = read_net_with_weights(*files)
    if kind.startswith("onnx"):
        source = tmp_path / "m.onnx"
        write_onnx(model, source, fold_bn=kind != "onnx")
    else:
        source = tmp_path / "exported"
        write_torch(model, source)
    if kind == "safetensors":
        source = source / "model.safetensors"
    if kind == "state_dict":
        import torch

        from converters.pytorch_export.output_files import load_folder

        torch.save(load_folder(source).state_dict(), tmp_path / "m.pt")
        source = tmp_path / "m.pt"
    net = ["--net", files[0]] if kind == "state_dict" else ["--write-net", tmp_path / "back.prototxt"]
    result = convert("caffemodel", source, "-o", tmp_path / "back.caffemodel", *net, "--to-dialect", "prototxt-gen")
    assert result.exit_code == 0, result.output
    prototxt = files[0] if kind == "state_dict" else tmp_path / "back.prototxt"
    back = read_net_with_weights(prototxt, tmp_path / "back.caffemodel")
    inputs = seeded_inputs(model)
    assert difference(run_torch(model, inputs)["ip"], run_torch(back, inputs)["ip"])[0] < 1e-5


def test_a_state_dict_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    import torch

    files = write_files(tmp_path / "in", PAIR)
    torch.save({"conv.weight": torch.zeros(4, 3, 5, 5)}, tmp_path / "m.pt")
    result = convert("caffemodel", tmp_path / "m.pt", "-o", tmp_path / "b.caffemodel", "--net", files[0])
    assert result.exit_code == 1
    assert "conv.weight is (4, 3, 5, 5)" in result.stderr and "ip.1.weight is missing" in result.stderr
    assert not (tmp_path / "b.caffemodel").exists()


def test_an_onnx_model_of_another_converter_is_refused(tmp_path: Path) -> None:
    import onnx

    files = write_files(tmp_path / "in", PAIR)
    write_onnx(read_net_with_weights(*files), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    result = convert("caffemodel", tmp_path / "other.onnx", "-o", tmp_path / "b.caffemodel", "--net", files[0])
    assert result.exit_code == 1 and "not an ONNX model that prototxt-gen wrote" in result.stderr
