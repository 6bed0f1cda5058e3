"""Blobs whose names ONNX cannot have, outputs written over inputs, and inputs without axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from converters import read_net_with_weights
from converters.common.names import onnx_names
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.verify import verify
from converters.write_models import write_onnx, write_torch
from prototxt_gen.evaluate.converted_predictors import open_converted

INPUT = 'input: "data" input_shape { dim: 1 dim: 2 dim: 3 dim: 3 }\n'


def relu(bottom: str, top: str) -> str:
    return f'layer {{ name: "{bottom}-{top}" type: "ReLU" bottom: "{bottom}" top: "{top}" }}\n'


def shift(bottom: str, top: str) -> str:
    return f'layer {{ name: "s" type: "Power" bottom: "{bottom}" top: "{top}" power_param {{ shift: 2 }} }}\n'


NETS = {
    "empty name of a top": (INPUT + relu("data", "") + shift("", "x"), ["x"]),
    "empty name of the output": (INPUT + relu("data", ""), ["unnamed"]),
    "empty name beside unnamed": (INPUT + relu("data", "") + shift("data", "unnamed"), ["unnamed_2", "unnamed"]),
    "empty name of the input": ('input: "" input_shape { dim: 2 dim: 3 }\n' + relu("", "x"), ["x"]),
    "empty name, in place over the input": ('input: "" input_shape { dim: 2 dim: 3 }\n' + relu("", ""), ["unnamed:1"]),
    "in place over the input": (INPUT + relu("data", "data"), ["data:1"]),
    "twice in place over the input": (INPUT + relu("data", "data") + shift("data", "data"), ["data:2"]),
    "in place over a blob named like a version": (INPUT + relu("data", "data") + shift("data", "data:1"), ["data:1"]),
    "both named like a version": (
        'input: "other" input_shape { dim: 2 }\n' + INPUT
        + relu("other", "data:1") + relu("data", "data"), ["data:1_2", "data:1"],
    ),
    "without axes": ('input: "data" input_shape { }\n' + shift("data", "x") + relu("x", "y"), ["y"]),
    "without axes, as a layer": (
        'layer { name: "d" type: "Input" top: "data" input_param { shape { } } }\n' + relu("data", "data"), ["data:1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_net_is_converted_and_verified(tmp_path: Path, name: str) -> None:
    text, outputs = NETS[name]
    (tmp_path / "net.prototxt").write_text(text)
    model = read_net_with_weights(tmp_path / "net.prototxt", None)
    done = write_onnx(model, tmp_path / "net.onnx")
    assert done.report is not None
    assert done.report.verified
    assert [value.name for value in onnx.load(tmp_path / "net.onnx").graph.output] == outputs
    assert write_torch(model, tmp_path / "folder").report
    report = verify(model, seeded_inputs(model), ("torch", "onnx"))
    assert report.verified
    computed = {value.blob for layer in model.net.layers for value in layer.tops if layer.type != "Input"}
    assert {comparison.blob for comparison in report.compared[0].comparisons} == computed


def test_blobs_with_bytes_that_are_not_utf8_keep_apart() -> None:
    names = onnx_names(["a\udce9", "a\\xe9", "b"])
    assert names == {"a\udce9": "a\\xe9_2", "a\\xe9": "a\\xe9", "b": "b"}


def test_scores_written_over_the_input(tmp_path: Path) -> None:
    text = 'input: "data" input_shape { dim: 1 dim: 5 dim: 1 dim: 1 }\n' + shift("data", "data")
    (tmp_path / "net.prototxt").write_text(text)
    write_onnx(read_net_with_weights(tmp_path / "net.prototxt", None), tmp_path / "net.onnx")
    for output in ("", "data"):
        predictor, _ = open_converted(tmp_path / "net.onnx", output)
        np.testing.assert_array_equal(predictor(np.ones((1, 5, 1, 1), np.float32)), np.full((1, 5), 3))
