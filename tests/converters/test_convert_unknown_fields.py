"""Unknown fields in a conversion: those that only training uses are left out with a remark, others are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_net_with_weights
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.verify import verify
from prototxt_gen import analyse, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import UnsupportedError, WeightsError
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import write
from tests.support.sane_weights import sane_weights

CONV = "num_output: 2 kernel_size: 3"


def net(inside: str = "", beside: str = "") -> str:
    """Return a prototxt with text inside a convolution_param and beside it."""
    return (
        'name: "n" input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
        f'layer {{ name: "c" type: "Convolution" bottom: "data" top: "c" {beside} '
        f"convolution_param {{ {CONV} {inside} }} }}\n"
        'layer { name: "r" type: "ReLU" bottom: "c" top: "r" }\n'
    )


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    analysis = analyse(parse_net(net()))
    write(tmp_path / "n.caffemodel", analysis, sane_weights(analysis), find_dialect("bvlc"))
    return tmp_path / "n.caffemodel"


HARMLESS = {
    "weight_filler.mystery": net('weight_filler { type: "xavier" mystery: 2 }'),
    "bias_filler.type": net("bias_filler { type: 3 }"),
    "blobs_lr": net(beside="blobs_lr: 1 blobs_lr: 2"),
    "weight_decay": net(beside="weight_decay: 1"),
    "engine": net(beside='engine: "MKL2017"'),
    "convolution_param.engine": net("engine: MKLDNN"),
}


@pytest.mark.parametrize("path", HARMLESS)
def test_a_field_that_only_training_uses_is_left_out_with_a_remark(path: str, weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(HARMLESS[path])
    model = read_net_with_weights(file, weights)
    assert [remark for remark in model.remarks if path in remark and "left out" in remark]
    assert not model.matches_files, "Caffe refuses a file with a field that it lacks"
    assert verify(model, seeded_inputs(model), ("pycaffe", "torch", "onnx")).verified


@pytest.mark.parametrize("path", HARMLESS)
def test_the_same_field_is_refused_without_a_conversion(path: str) -> None:
    with pytest.raises(UnsupportedError, match=path):
        analyse_for_conversion(parse_net(HARMLESS[path]).at("TEST"))


REFUSED = {
    "convolution_param.mystery": net("mystery: 2"),
    "convolution_param.num_output": net("num_output: 4"),
    "mystery": net(beside="mystery: false"),
    "mystery_param": net(beside="mystery_param { type: 3 }"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_any_other_field_is_refused_and_the_option_is_named(path: str, weights: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "net.prototxt", tmp_path / "net.onnx"
    file.write_text(REFUSED[path])
    arguments = ["convert", "onnx", str(file), str(weights), "-o", str(out)]
    result = CliRunner().invoke(cli, arguments)
    name = path.split(".")[-1]
    assert result.exit_code == 1 and not out.exists()
    assert f"layer 'c' (Convolution): line 2: {path} is not understood" in result.stderr
    assert f"--ignore-field {name}" in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert CliRunner().invoke(cli, [*arguments, "--ignore-field", name]).exit_code == 0 and out.exists()


def test_an_unknown_field_of_dummy_data_is_refused() -> None:
    text = net() + (
        'layer { name: "k" type: "DummyData" top: "k" dummy_data_param { shape { dim: 1 } mystery: 1 } }\n'
        'layer { name: "b" type: "Bias" bottom: "r" bottom: "k" top: "b" bias_param { axis: 0 } }\n'
    )
    analysis = analyse(parse_net(net()))
    with pytest.raises(UnsupportedError, match=r"dummy_data_param\.mystery is not understood"):
        read_net_with_weights(parse_net(text), sane_weights(analysis))


def test_a_net_without_learned_blobs_needs_no_weights() -> None:
    net_without_weights = parse_net(
        'name: "n" input: "x" input_shape { dim: 2 } layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
    )
    assert verify(
        read_net_with_weights(net_without_weights, None), {"x": np.array([-1, 2], "float32")}, ("torch", "onnx")
    ).verified
    with pytest.raises(WeightsError, match=r"n: it needs weights, for layer 'c' \(Convolution\)"):
        read_net_with_weights(parse_net(net()), None)
