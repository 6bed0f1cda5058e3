"""Nets with folded normalisation compute the same as before, also in real Caffe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import read_net_with_weights
from converters.onnx_export.net_to_onnx import lower_to_onnx
from converters.verification.blob_comparison import difference
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.runtimes import run_onnx_net, run_torch
from prototxt_gen import analyse, parse_net
from prototxt_gen.passes.bn_fold import fold_normalisation
from prototxt_gen.weights import Weights
from tests.support.sane_weights import sane_weights

INPUT = 'input: "data" input_shape { dim: 2 dim: 4 dim: 6 dim: 5 }'
CONV = (
    'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 6 kernel_size: 3 } }'
)
BATCH_NORM = 'layer { name: "b" type: "BatchNorm" bottom: "c" top: "c" batch_norm_param { eps: 0.01 } }'
SCALE = 'layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }'
RELU = 'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }'


def conv(type_: str = "Convolution", fields: str = "num_output: 6 kernel_size: 3") -> str:
    field = "inner_product_param" if type_ == "InnerProduct" else "convolution_param"
    return f'layer {{ name: "c" type: "{type_}" bottom: "data" top: "c" {field} {{ {fields} }} }}'


FOLDS = {
    "batch norm and scale": (CONV + BATCH_NORM + SCALE + RELU, 3),
    "batch norm alone": (CONV + BATCH_NORM + RELU, 2),
    "scale without a bias": (CONV + 'layer { name: "s" type: "Scale" bottom: "c" top: "s" }', 2),
    "a bias layer": (CONV + 'layer { name: "s" type: "Bias" bottom: "c" top: "s" }', 2),
    "merged BN": (CONV + 'layer { name: "b" type: "BN" bottom: "c" top: "b" bn_param { eps: 0.1 } }', 2),
    "no bias before": (conv(fields="num_output: 6 kernel_size: 3 bias_term: false") + BATCH_NORM + SCALE, 1 + 1),
    "groups": (conv(fields="num_output: 6 kernel_size: 3 group: 2") + BATCH_NORM + SCALE, 2),
    "deconvolution in groups": (conv("Deconvolution", "num_output: 6 kernel_size: 3 group: 2") + BATCH_NORM + SCALE, 2),
    "inner product": (conv("InnerProduct", "num_output: 6") + BATCH_NORM + SCALE, 2),
    "inner product, transposed": (conv("InnerProduct", "num_output: 6 transpose: true") + BATCH_NORM + SCALE, 2),
    "depthwise": (conv("ConvolutionDepthwise", "num_output: 4 kernel_size: 3") + BATCH_NORM + SCALE, 2),
}
KEPT = {
    "the blob between is used elsewhere": CONV
    + 'layer { name: "b" type: "BatchNorm" bottom: "c" top: "b" }'
    + 'layer { name: "e" type: "Eltwise" bottom: "c" bottom: "b" top: "e" }',
    "a ReLU lies between": CONV + RELU + BATCH_NORM,
    "scale over another axis": CONV + 'layer { name: "s" type: "Scale" bottom: "c" top: "s" scale_param { axis: 2 } }',
    "batch statistics": CONV
    + 'layer { name: "b" type: "BatchNorm" bottom: "c" top: "c" batch_norm_param { use_global_stats: false } }',
    "weights are shared": CONV.replace('top: "c"', 'top: "c" param { name: "w" } param { name: "v" }') + BATCH_NORM,
    "inner product over a later axis": conv("InnerProduct", "num_output: 5 axis: 3")
    + 'layer { name: "s" type: "Scale" bottom: "c" top: "s" }',
}


def caffe_model(layers: str) -> Any:
    net = parse_net(INPUT + layers, "folding.prototxt").at("TEST")
    return read_net_with_weights(net, sane_weights(analyse(net)))


@pytest.mark.parametrize("name", FOLDS)
def test_folds_and_computes_the_same(name: str) -> None:
    layers, _ = FOLDS[name]
    one = caffe_model(layers)
    folded, weights = fold_normalisation(one.analysis, one.weights)
    types = [layer.type for layer in folded.net.layers]
    assert not {"BatchNorm", "BN", "Scale", "Bias"} & set(types), types
    inputs = seeded_inputs(one)
    output = one.net.outputs[-1].blob
    wanted = run_torch(one, inputs)[output]
    assert difference(wanted, run_torch(read_net_with_weights(folded.net, weights), inputs)[output])[0] < 1e-5
    assert difference(wanted, run_onnx_net(lower_to_onnx(one.analysis, one.weights), inputs)[output])[0] < 1e-5


@pytest.mark.parametrize("name", KEPT)
def test_normalisation_that_cannot_be_folded_stays(name: str) -> None:
    one = caffe_model(KEPT[name])
    folded, _ = fold_normalisation(one.analysis, one.weights)
    assert [layer.type for layer in folded.net.layers] == [layer.type for layer in one.net.layers]


def test_factors_that_are_not_finite_are_not_folded() -> None:
    one = caffe_model(CONV + BATCH_NORM.replace("eps: 0.01", "eps: 0"))
    blobs = {name: dict(roles) for name, roles in one.weights.blobs.items()}
    blobs["b"]["variance"] = np.zeros_like(blobs["b"]["variance"])
    folded, _ = fold_normalisation(one.analysis, Weights(blobs))
    assert "BatchNorm" in [layer.type for layer in folded.net.layers]
