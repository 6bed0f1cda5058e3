"""Small nets that other converters convert wrongly without a warning: ONNX, PyTorch and model.py against real Caffe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from converters import read_net_with_weights
from converters.pytorch_export.output_files import load_folder, run_module, write_folder
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.verify import verify
from converters.write_models import convert_to_onnx, verify_written_model, write_onnx
from prototxt_gen import analyse, parse_net
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.runtime.torch_net import TorchNet
from tests.support.caffe_support import caffe_or_skip
from tests.support.sane_weights import sane_weights

IMAGE = 'input: "data" input_shape { dim: 2 dim: 4 dim: 7 dim: 9 }'
SHORT = 'layer {{ name: "it" type: "{0}" bottom: "data" top: "it" {1} }}'
CONV = (
    'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }'
)
NORM = 'layer { name: "b" type: "BatchNorm" bottom: "c" top: "b" batch_norm_param { eps: 0.001 } }'
SCALE = 'layer { name: "s" type: "Scale" bottom: "b" top: "s" scale_param { bias_term: true } }'


def one_layer(type_: str, params: str = "") -> str:
    return IMAGE + SHORT.format(type_, params)


ERRORS = {
    "lrn k": one_layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 k: 2 }"),
    "lrn within channel": one_layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }"),
    "last pooling window clipped": one_layer("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"),
    "last pooling window dropped": one_layer("Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 pad: 1 }"),
    "average pooling's divisor with padding": one_layer(
        "Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"
    ),
    "average pooling's divisor, clipped": one_layer("Pooling", "pooling_param { pool: AVE kernel_size: 4 stride: 3 }"),
    "eltwise coeff": IMAGE
    + 'layer { name: "a" type: "AbsVal" bottom: "data" top: "a" }'
    + 'layer { name: "e" type: "Eltwise" bottom: "data" bottom: "a" top: "e" eltwise_param { coeff: 0.5 coeff: -2 } }',
    "scale axis": one_layer("Scale", "scale_param { axis: 2 bias_term: true }"),
    "scale two axes": one_layer("Scale", "scale_param { axis: 1 num_axes: 2 }"),
    "inner product axis": one_layer("InnerProduct", "inner_product_param { num_output: 5 axis: 2 }"),
    "inner product transpose": one_layer("InnerProduct", "inner_product_param { num_output: 5 transpose: true }"),
    "exp base": one_layer("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }"),
    "log base": IMAGE
    + 'layer { name: "a" type: "AbsVal" bottom: "data" top: "a" }'
    + 'layer { name: "l" type: "Log" bottom: "a" top: "l" log_param { base: 10 shift: 0.5 } }',
    "argmax without axis": one_layer("ArgMax"),
    "argmax with values": one_layer("ArgMax", "argmax_param { out_max_val: true top_k: 3 }"),
    "reduction coeff": one_layer("Reduction", "reduction_param { operation: SUM axis: 1 coeff: -0.5 }"),
    "batch norm whose Scale is not next": IMAGE
    + CONV
    + NORM
    + 'layer { name: "r" type: "ReLU" bottom: "b" top: "b" }'
    + SCALE,
    "batch norm used elsewhere": IMAGE
    + CONV
    + NORM
    + SCALE
    + 'layer { name: "e" type: "Eltwise" bottom: "b" bottom: "s" top: "e" }',
    "batch norm's eps without a Scale": IMAGE + CONV + NORM,
    "mvn across channels": one_layer("MVN", "mvn_param { across_channels: true }"),
    "slice defaults": IMAGE + 'layer { name: "s" type: "Slice" bottom: "data" top: "x" top: "y" }',
    "crop defaults": IMAGE
    + CONV
    + 'layer { name: "k" type: "Crop" bottom: "data" bottom: "c" top: "k" crop_param { } }',
    "merged BN": IMAGE + CONV + 'layer { name: "b" type: "BN" bottom: "c" top: "b" bn_param { eps: 0.001 } }',
    "merged BN, frozen, in place": IMAGE
    + CONV
    + 'layer { name: "b" type: "BN" bottom: "c" top: "c" bn_param { frozen: true } }',
    "interp of two bottoms": IMAGE
    + CONV
    + 'layer { name: "i" type: "Interp" bottom: "c" bottom: "data" top: "i" interp_param { } }',
    "interp shrink": one_layer("Interp", "interp_param { shrink_factor: 2 }"),
    "spp": one_layer("SPP", "spp_param { pyramid_height: 2 pool: MAX }"),
    "embed": 'input: "data" input_shape { dim: 3 dim: 2 }'
    + SHORT.format("Embed", "embed_param { num_output: 4 input_dim: 6 }"),
}


def model_of(text: str) -> Any:
    net = parse_net(text, "peers.prototxt").at("TEST")
    return read_net_with_weights(net, sane_weights(analyse(net)))


@pytest.mark.caffe
@pytest.mark.parametrize("name", ERRORS)
def test_nets_that_other_converters_get_wrong(name: str, tmp_path: Path) -> None:
    caffe_or_skip()
    model = model_of(ERRORS[name])
    report = verify(model, seeded_inputs(model), ("pycaffe", "torch", "onnx"))
    assert report.reference == "pycaffe" and report.verified, report
    assert report.worst < 1e-5 and not any(c.excused for o in report.compared for c in o.comparisons)
    write_onnx(model, tmp_path / "m.onnx")  # with batch normalisation folded; verifies the file
    write_folder(model, TorchNet(model.analysis, model.weights), tmp_path / "exported")
    module = load_folder(tmp_path / "exported")
    assert verify_written_model(model, "model.py", lambda inputs: run_module(model, module, inputs)).verified


def test_an_unknown_layer_is_never_skipped() -> None:
    text = IMAGE + CONV + 'layer { name: "odd" type: "Whatever" bottom: "c" top: "odd" }'
    with pytest.raises(UnsupportedError, match="'odd' \\(Whatever\\)"):
        read_net_with_weights(parse_net(text), sane_weights(analyse(parse_net(IMAGE + CONV).at("TEST"))))


def test_the_wrong_bn_statistic_changes_the_result() -> None:
    """Reading an inverse standard deviation as a variance changes the result; all other converters do that."""
    model = model_of(ERRORS["merged BN"])
    blobs = {name: dict(roles) for name, roles in model.weights.blobs.items()}
    blobs["b"]["variance"] = blobs["b"].pop("inverse_std")
    from dataclasses import replace

    from converters.verification.blob_comparison import difference
    from converters.verification.runtimes import run_torch

    other = replace(model, weights=replace(model.weights, blobs=blobs))
    inputs = seeded_inputs(model)
    assert difference(run_torch(model, inputs)["b"], run_torch(other, inputs)["b"])[0] > 1e-2
    assert convert_to_onnx(model).model().graph.output[0].name == "b"
