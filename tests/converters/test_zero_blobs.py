"""Blobs that are mathematically zero: rounding there is no error, and anything else is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import read_net_with_weights
from converters.common.net_with_weights import NetWithWeights
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.runtimes import run_torch
from converters.verification.verify import verify
from converters.write_models import write_onnx
from prototxt_gen import analyse, parse_net
from tests.support.sane_weights import sane_weights

HEAD = """name: "zero" input: "data" input_shape { dim: 2 dim: 3 dim: 40 dim: 40 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 6 kernel_size: 3 } }
"""
MVN = 'layer { name: "mvn" type: "MVN" bottom: "conv" top: "mvn" }\n'
AVERAGE = """layer { name: "average" type: "Pooling" bottom: "mvn" top: "average"
  pooling_param { pool: AVE global_pooling: true } }
"""
INNER = 'layer { name: "ip" type: "InnerProduct" bottom: "average" top: "ip" inner_product_param { num_output: 4'
NETS = {
    "average of a normalised blob": HEAD + MVN + AVERAGE,
    "with a product behind": HEAD + MVN + AVERAGE + INNER + " } }",
    "with a product without bias behind": HEAD + MVN + AVERAGE + INNER + " bias_term: false } }",
    "normalised by the batch": HEAD
    + 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" batch_norm_param { use_global_stats: false } }\n'
    'layer { name: "mean" type: "Reduction" bottom: "bn" top: "mean" reduction_param { operation: MEAN } }',
    "difference of equal blobs": HEAD
    + 'layer { name: "twice" type: "Power" bottom: "conv" top: "twice" power_param { scale: 0.1 } }\n'
    'layer { name: "tenth" type: "Power" bottom: "conv" top: "tenth" power_param { scale: 0.1 shift: 1e-30 } }\n'
    'layer { name: "less" type: "Eltwise" bottom: "twice" bottom: "tenth" top: "less"'
    " eltwise_param { coeff: 1 coeff: -1 } }",
}


def read(text: str, folder: Path) -> NetWithWeights:
    (folder / "net.prototxt").write_text(text)
    return read_net_with_weights(folder / "net.prototxt", sane_weights(analyse(parse_net(text))))


@pytest.mark.parametrize("name", NETS)
def test_right_conversion_is_written(tmp_path: Path, name: str) -> None:
    done = write_onnx(read(NETS[name], tmp_path), tmp_path / "net.onnx")
    assert done.report is not None
    assert done.report.verified
    assert done.report.worst < 1e-4


def disturbed(blob: str, by: float) -> Any:
    def run(model: NetWithWeights, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        blobs = run_torch(model, inputs)
        return blobs | {blob: blobs[blob] + np.float32(by)}

    return run


@pytest.mark.parametrize(
    ("name", "blob"),
    [
        ("average of a normalised blob", "average"),
        ("with a product without bias behind", "ip"),
        ("normalised by the batch", "mean"),
    ],
)
def test_blob_that_should_be_zero_and_is_not_is_an_error(tmp_path: Path, name: str, blob: str) -> None:
    """Against the numbers of size 1 that enter the layers, 3e-3 is far beyond rounding."""
    model = read(NETS[name], tmp_path)
    report = verify(model, seeded_inputs(model), ("torch",), {"wrong": disturbed(blob, 3e-3)})
    assert not report.verified
    first = report.outcomes[-1].first_diverging
    assert first is not None
    assert first.blob == blob


def test_outputs_alone_do_not_excuse_a_number_in_place_of_zero(tmp_path: Path) -> None:
    """A converted file returns no bottoms, from which the layer could be run again."""
    model = read(NETS["with a product without bias behind"], tmp_path)
    wrong = disturbed("ip", 3e-3)
    runs = {"wrong": lambda caffe_model, inputs: {"ip": wrong(caffe_model, inputs)["ip"]}}
    assert not verify(model, seeded_inputs(model), ("torch",), runs).verified


def test_small_numbers_that_are_not_zero_are_compared_as_before(tmp_path: Path) -> None:
    tiny = HEAD + 'layer { name: "p" type: "Power" bottom: "conv" top: "p" power_param { scale: 1e-12 } }'
    model = read(tiny, tmp_path)
    report = verify(model, seeded_inputs(model), ("torch",), {"wrong": disturbed("p", 1e-15)})
    assert not report.verified
