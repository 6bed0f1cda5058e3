"""`convert onnx` where neither PyTorch nor Caffe is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_net_with_weights, write_models
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.run_numpy import run_numpy, uncovered_layers
from converters.verification.runtimes import RUNTIMES, run_torch
from converters.verification.verification_report import NotVerifiedError
from prototxt_gen import analyse, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.optional_packages import missing
from prototxt_gen.net.lowering_checks import is_input_layer
from tests.support.sane_weights import sane_weights

NET = """name: "small" input: "data" input_shape { dim: 2 dim: 4 dim: 11 dim: 12 }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
  convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 2 dilation: 2 } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" relu_param { negative_slope: 0.1 } }
layer { name: "m" type: "Pooling" bottom: "c" top: "m" pooling_param { kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "a" type: "Pooling" bottom: "c" top: "a" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "cat" type: "Concat" bottom: "m" bottom: "a" top: "cat" }
layer { name: "p" type: "Power" bottom: "cat" top: "p" power_param { scale: 0.5 shift: 1 } }
layer { name: "g" type: "Sigmoid" bottom: "p" top: "g" }
layer { name: "t" type: "TanH" bottom: "g" top: "t" }
layer { name: "f" type: "Flatten" bottom: "t" top: "f" }
layer { name: "ip" type: "InnerProduct" bottom: "f" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "d" type: "Dropout" bottom: "ip" top: "ip" }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
OTHER = (
    'input: "data" input_shape { dim: 1 dim: 2 dim: 4 dim: 4 } layer { name: "l" type: "LRN" bottom: "data" top: "l" }'
)


def model_of(text: str, folder: Path) -> Any:
    (folder / "net.prototxt").write_text(text)
    return read_net_with_weights(folder / "net.prototxt", sane_weights(analyse(parse_net(text))))


@pytest.fixture
def onnx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(*arguments: Any) -> Any:
        raise missing("torch")

    for name in ("torch", "pycaffe"):
        monkeypatch.setitem(RUNTIMES, name, not_installed)
    monkeypatch.setattr(write_models, "_has_reference_runtime", lambda: False)


def test_numpy_computes_what_pytorch_does(tmp_path: Path) -> None:
    """The factor of BatchNorm is a power of two, as PyTorch's module divides by it in single precision."""
    (tmp_path / "net.prototxt").write_text(NET)
    weights = sane_weights(analyse(parse_net(NET)))
    weights.of("bn")["factor"][...] = 4
    model = read_net_with_weights(tmp_path / "net.prototxt", weights)
    assert not uncovered_layers(model)
    inputs = seeded_inputs(model)
    ours, theirs = run_numpy(model, inputs), run_torch(model, inputs, double=True)
    for layer in model.net.layers:
        if not is_input_layer(layer):
            blob = layer.tops[0].blob
            np.testing.assert_allclose(ours[blob], theirs[blob], rtol=1e-9, atol=1e-12, err_msg=blob)


@pytest.mark.usefixtures("onnx_alone")
def test_onnx_is_compared_with_numpy(tmp_path: Path) -> None:
    done = write_models.write_onnx(model_of(NET, tmp_path), tmp_path / "net.onnx")
    assert done.report is not None
    assert done.report.verified
    assert [outcome.runtime for outcome in done.report.outcomes if outcome.state == "ran"] == ["numpy", "onnx"]


@pytest.mark.usefixtures("onnx_alone")
def test_wrong_conversion_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Any, path: Path, inputs: Any) -> Any:
        return {"prob": run_torch(model, inputs)["prob"] * np.float32(1.01)}

    monkeypatch.setattr(write_models, "_run_onnx_export", wrong)
    with pytest.raises(NotVerifiedError):
        write_models.write_onnx(model_of(NET, tmp_path), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.usefixtures("onnx_alone")
def test_what_cannot_be_compared_is_written_and_said_last(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(OTHER)
    done = CliRunner().invoke(cli, ["convert", "onnx", str(tmp_path / "net.prototxt")])
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "net.onnx").exists()
    assert done.stderr.splitlines()[-1].startswith("NOT VERIFIED: nothing installed here computes LRN ×1, so that no")
    assert "prototxt-gen[torch]" in done.stderr
