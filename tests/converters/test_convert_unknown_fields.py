"""Unknown fields in a conversion: what only a solver needs is left out and told; all else is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_subject
from converters.verification.comparison_inputs import seeded
from converters.verification.verify import verify
from prototxt_gen import analyse, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import UnsupportedError, WeightsError
from prototxt_gen.net.lowering_checks import ready
from prototxt_gen.schema.dialect import dialect
from prototxt_gen.weights import write
from tests.support.sane_weights import sane_weights

CONV = "num_output: 2 kernel_size: 3"


def net(inside: str = "", beside: str = "") -> str:
    return (
        'name: "n" input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
        f'layer {{ name: "c" type: "Convolution" bottom: "data" top: "c" {beside} '
        f"convolution_param {{ {CONV} {inside} }} }}\n"
        'layer { name: "r" type: "ReLU" bottom: "c" top: "r" }\n'
    )


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    analysis = analyse(parse_net(net()))
    write(tmp_path / "n.caffemodel", analysis, sane_weights(analysis), dialect("bvlc"))
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
def test_what_only_training_needs_is_left_out_and_told(path: str, weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(HARMLESS[path])
    one = read_subject(file, weights)
    assert [remark for remark in one.remarks if path in remark and "left out" in remark]
    assert not one.as_filed, "a Caffe that does not know the field refuses the file"
    assert verify(one, seeded(one), ("pycaffe", "torch", "onnx")).verified


@pytest.mark.parametrize("path", HARMLESS)
def test_a_net_to_be_trained_is_refused_for_the_same(path: str) -> None:
    with pytest.raises(UnsupportedError, match=path):
        ready(parse_net(HARMLESS[path]).at("TEST"))


REFUSED = {
    "convolution_param.mystery": net("mystery: 2"),
    "convolution_param.num_output": net("num_output: 4"),
    "mystery": net(beside="mystery: false"),
    "mystery_param": net(beside="mystery_param { type: 3 }"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_all_else_is_refused_with_the_remedy(path: str, weights: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "net.prototxt", tmp_path / "net.onnx"
    file.write_text(REFUSED[path])
    arguments = ["convert", "onnx", str(file), str(weights), "-o", str(out)]
    done = CliRunner().invoke(cli, arguments)
    name = path.split(".")[-1]
    assert done.exit_code == 1 and not out.exists()
    assert f"layer 'c' (Convolution): line 2: {path} is not understood" in done.stderr
    assert f"--ignore-field {name}" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert CliRunner().invoke(cli, [*arguments, "--ignore-field", name]).exit_code == 0 and out.exists()


def test_what_makes_constants_is_no_place_for_unknown_fields() -> None:
    text = net() + (
        'layer { name: "k" type: "DummyData" top: "k" dummy_data_param { shape { dim: 1 } mystery: 1 } }\n'
        'layer { name: "b" type: "Bias" bottom: "r" bottom: "k" top: "b" bias_param { axis: 0 } }\n'
    )
    analysis = analyse(parse_net(net()))
    with pytest.raises(UnsupportedError, match=r"dummy_data_param\.mystery is not understood"):
        read_subject(parse_net(text), sane_weights(analysis))


def test_a_net_that_learns_nothing_needs_no_weights() -> None:
    bare = parse_net(
        'name: "n" input: "x" input_shape { dim: 2 } layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
    )
    assert verify(read_subject(bare, None), {"x": np.array([-1, 2], "float32")}, ("torch", "onnx")).verified
    with pytest.raises(WeightsError, match=r"n: it needs weights, for layer 'c' \(Convolution\)"):
        read_subject(parse_net(net()), None)
