"""Batch normalisation in its forms, in every fork's numbers, and the way back to Caffe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_subject
from converters.verification.blob_comparison import difference
from converters.verification.comparison_inputs import seeded
from converters.verification.runtimes import run_torch
from converters.verification.verify import verify
from converters.write_models import write_onnx, write_torch
from prototxt_gen import analyse, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.net.render import net_text
from prototxt_gen.passes.bn_merge import merge
from prototxt_gen.passes.bn_split import split
from prototxt_gen.schema.dialect import DIALECTS, dialect
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


def written(folder: Path, text: str, fork: str = "prototxt-gen", statistic: str = "inverse_std") -> tuple[Path, Path]:
    net = parse_net(text, "net.prototxt")
    analysis = analyse(net.at("TEST"))
    folder.mkdir(exist_ok=True)
    prototxt, model = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(net_text(net))
    meaning = as_variance if statistic == "variance" else as_inverse_std
    write(model, analysis, meaning(sane_weights(analysis), analysis), dialect(fork))
    return prototxt, model


def convert(*arguments: Any) -> Any:
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


@pytest.mark.parametrize("text", [MERGED, PAIR], ids=["merged", "pair"])
def test_splitting_and_merging_compute_the_same(text: str) -> None:
    net = parse_net(text, "net.prototxt").at("TEST")
    one = read_subject(net, sane_weights(analyse(net)))
    inputs = seeded(one)
    wanted = run_torch(one, inputs)["ip"]
    for change, gone in ((split, {"BN"}), (merge, {"BatchNorm", "Scale"})):
        made, weights = change(one.net, one.weights)
        assert not gone & {layer.type for layer in made.layers}
        assert difference(wanted, run_torch(read_subject(made, weights), inputs)["ip"])[0] < 1e-5


def test_scale_is_merged_only_where_it_alone_takes_the_normalised_blob() -> None:
    text = (
        PAIR.replace('top: "conv" batch_norm_param', 'top: "n" batch_norm_param')
        .replace('bottom: "conv" top: "conv" scale_param', 'bottom: "n" top: "s" scale_param')
        .replace(TAIL, 'layer { name: "e" type: "Eltwise" bottom: "n" bottom: "s" top: "e" }\n')
    )
    net = parse_net(text, "net.prototxt").at("TEST")
    one = read_subject(net, sane_weights(analyse(net)))
    made, weights = merge(one.net, one.weights)
    assert [layer.type for layer in made.layers] == ["Convolution", "BN", "Scale", "Eltwise"]
    inputs = seeded(one)
    wanted, got = (run_torch(each, inputs)["e"] for each in (one, read_subject(made, weights)))
    assert difference(wanted, got)[0] < 1e-5


def test_an_inverse_std_no_variance_gives_survives_splitting() -> None:
    net = parse_net(MERGED, "net.prototxt").at("TEST")
    weights = sane_weights(analyse(net))
    blobs = {name: dict(roles) for name, roles in weights.blobs.items()}
    blobs["bn"]["inverse_std"] = np.full_like(blobs["bn"]["inverse_std"], 1000.0)  # above 1/sqrt(eps)
    one = read_subject(net, replace(weights, blobs=blobs))
    made, found = split(one.net, one.weights)
    inputs = seeded(one)
    wanted, got = (run_torch(each, inputs)["ip"] for each in (one, read_subject(made, found)))
    assert difference(wanted, got)[0] < 1e-4


@pytest.mark.parametrize("form", ["merged", "batchnorm-scale", "folded"])
@pytest.mark.parametrize("text", [MERGED, PAIR], ids=["from merged", "from a pair"])
def test_the_command_writes_nets_that_compute_the_same(text: str, form: str, tmp_path: Path) -> None:
    prototxt, model = written(tmp_path / "in", text)
    done = convert("bn", prototxt, model, "-o", tmp_path / "out", "--to", form)
    assert done.exit_code == 0, done.output
    before, after = read_subject(prototxt, model), read_subject(*(tmp_path / "out" / f.name for f in (prototxt, model)))
    inputs = seeded(before)
    assert difference(run_torch(before, inputs)["ip"], run_torch(after, inputs)["ip"])[0] < 1e-5


@pytest.mark.parametrize("statistic", ["inverse-std", "variance"])
@pytest.mark.parametrize("fork", FORKS)
def test_any_forks_numbers_and_meaning(fork: str, statistic: str, tmp_path: Path) -> None:
    prototxt, model = written(tmp_path / "in", MERGED)
    arguments = ["--to", "merged", "--to-dialect", fork, "--to-statistic", statistic]
    done = convert("bn", prototxt, model, "-o", tmp_path / "out", *arguments)
    assert done.exit_code == 0, done.output
    before = read_subject(prototxt, model)
    meaning = statistic.replace("-", "_")
    after = read_subject(tmp_path / "out" / "net.prototxt", tmp_path / "out" / "net.caffemodel", bn_statistic=meaning)
    assert meaning in after.weights.of("bn")
    inputs = seeded(before)
    assert difference(run_torch(before, inputs)["ip"], run_torch(after, inputs)["ip"])[0] < 1e-5


def test_a_meaning_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    prototxt, model = written(tmp_path / "in", MERGED, "happynear")
    with pytest.raises(PrototxtGenError, match="--bn-statistic"):
        read_subject(prototxt, model)
    read_subject(prototxt, model, bn_statistic="inverse_std")


@pytest.mark.caffe
@pytest.mark.parametrize("statistic", ["inverse_std", "variance"])
@pytest.mark.parametrize("text", [MERGED, PAIR], ids=["merged", "pair"])
def test_real_caffe_computes_the_same(text: str, statistic: str, tmp_path: Path) -> None:
    caffe_or_skip()
    files = written(tmp_path / "in", text, "prototxt-gen", statistic)
    one = read_subject(*files, bn_statistic=statistic)
    found = verify(one, seeded(one), ("pycaffe", "torch", "onnx"))
    assert found.reference == "pycaffe" and found.verified and found.worst < 1e-5


@pytest.mark.parametrize("text", [MERGED, PAIR], ids=["merged", "pair"])
@pytest.mark.parametrize("kind", ["folder", "safetensors", "state_dict", "onnx", "onnx folded"])
def test_back_to_caffe(kind: str, text: str, tmp_path: Path) -> None:
    files = written(tmp_path / "in", text)
    one = read_subject(*files)
    if kind.startswith("onnx"):
        source = tmp_path / "m.onnx"
        write_onnx(one, source, fold_bn=kind != "onnx")
    else:
        source = tmp_path / "made"
        write_torch(one, source)
    if kind == "safetensors":
        source = source / "model.safetensors"
    if kind == "state_dict":
        import torch

        from converters.pytorch_export.output_files import load_folder

        torch.save(load_folder(source).state_dict(), tmp_path / "m.pt")
        source = tmp_path / "m.pt"
    net = ["--net", files[0]] if kind == "state_dict" else ["--write-net", tmp_path / "back.prototxt"]
    done = convert("caffemodel", source, "-o", tmp_path / "back.caffemodel", *net, "--to-dialect", "prototxt-gen")
    assert done.exit_code == 0, done.output
    prototxt = files[0] if kind == "state_dict" else tmp_path / "back.prototxt"
    back = read_subject(prototxt, tmp_path / "back.caffemodel")
    inputs = seeded(one)
    assert difference(run_torch(one, inputs)["ip"], run_torch(back, inputs)["ip"])[0] < 1e-5


def test_a_state_dict_that_does_not_fit_is_told(tmp_path: Path) -> None:
    import torch

    files = written(tmp_path / "in", PAIR)
    torch.save({"conv.weight": torch.zeros(4, 3, 5, 5)}, tmp_path / "m.pt")
    done = convert("caffemodel", tmp_path / "m.pt", "-o", tmp_path / "b.caffemodel", "--net", files[0])
    assert done.exit_code == 1
    assert "conv.weight is (4, 3, 5, 5)" in done.stderr and "ip.1.weight is missing" in done.stderr
    assert not (tmp_path / "b.caffemodel").exists()


def test_an_onnx_of_others_is_refused(tmp_path: Path) -> None:
    import onnx

    files = written(tmp_path / "in", PAIR)
    write_onnx(read_subject(*files), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    done = convert("caffemodel", tmp_path / "other.onnx", "-o", tmp_path / "b.caffemodel", "--net", files[0])
    assert done.exit_code == 1 and "not an ONNX model that prototxt-gen wrote" in done.stderr
